//! The body of every answer that is an error.

use schemars::JsonSchema;
use serde::Serialize;

/// `{"type": "error", "error": {…}, "request_id": "…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ErrorBody {
    /// Always [`ErrorBody::TYPE`].
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What went wrong.
    pub error: ErrorDetail,
    /// Names the request in the server's log.
    pub request_id: String,
}

impl ErrorBody {
    /// The value of `type`.
    pub const TYPE: &'static str = "error";
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ErrorDetail {
    /// For programs: the class of the error.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// For people.
    pub message: String,
}
