//! `GET /v1/users/me/balance`.

use axum::Json;
use kimi_api::BalanceResponse;

/// Nothing is owed to a server of one's own: zeros, so that clients which show the balance go on.
pub(crate) async fn balance() -> Json<BalanceResponse> {
    Json(BalanceResponse::default())
}
