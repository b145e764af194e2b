//! `/v1/files`: uploading, listing, looking, reading, deleting.

use std::fs::File;
use std::io::{self, Read};

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use kimi_api::{FileDeleted, FileList, FileObject};

use super::upload::receive;
use crate::auth::Caller;
use crate::telemetry::RequestId;
use crate::{ApiError, App};

/// Bytes of a file that are read at a time.
const PIECE: usize = 256 * 1024;

/// Takes a file.
pub(crate) async fn upload(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<FileObject>, ApiError> {
    receive(app.files(), caller, request, &request_id).await.map(Json)
}

/// The caller's files.
pub(crate) async fn list(State(app): State<App>, Extension(caller): Extension<Caller>) -> Json<FileList> {
    Json(FileList { object: "list", data: app.files().list(caller) })
}

/// What is known of a file.
pub(crate) async fn retrieve(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<FileObject>, ApiError> {
    app.files().get(caller, &id).map(Json)
}

/// Deletes a file.
pub(crate) async fn delete(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<FileDeleted>, ApiError> {
    app.files().delete(caller, &id)?;
    Ok(Json(FileDeleted { id, object: FileObject::OBJECT, deleted: true }))
}

/// The file itself, as something to be saved: no browser may run what somebody uploaded.
pub(crate) async fn content(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let (file, mime_type, bytes) = app.files().open(caller, &id)?;
    let file = file.map_err(|error| {
        tracing::error!(%error, "an uploaded file cannot be opened");
        ApiError::internal(&request_id, "The file could not be read")
    })?;
    let headers = [
        (header::CONTENT_TYPE, mime_type.to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
        (header::CONTENT_DISPOSITION, "attachment".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, Body::from_stream(pieces(file))).into_response())
}

/// The bytes of a file, read where waiting for the disk stops nobody.
fn pieces(file: File) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    futures_util::stream::unfold(Some(file), async |file| {
        let mut file = file?;
        let read = move || {
            let mut piece = vec![0; PIECE];
            let len = file.read(&mut piece)?;
            piece.truncate(len);
            Ok::<_, io::Error>((file, piece))
        };
        match tokio::task::spawn_blocking(read).await.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok((_, piece)) if piece.is_empty() => None,
            Ok((file, piece)) => Some((Ok(piece.into()), Some(file))),
            Err(error) => Some((Err(error), None)),
        }
    })
}
