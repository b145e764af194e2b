//! The body of every answer that is an error.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

/// `{"error": {…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ErrorDetail {
    /// For people: what was wrong, the limit, the way out. Clients match on some of these texts.
    pub message: String,
    /// For programs: the class of the error.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// For programs: the exact cause, where one has a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Cow<'static, str>>,
}
