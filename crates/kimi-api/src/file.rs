//! `/v1/files`: uploads that messages refer to as `ms://ID`.

use schemars::JsonSchema;
use serde::Serialize;

/// What is known of an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileObject {
    /// Names it in messages and routes; cannot be guessed.
    pub id: String,
    /// Always [`FileObject::OBJECT`].
    pub object: &'static str,
    /// Its size.
    pub bytes: u64,
    /// When it was uploaded, in seconds since 1970.
    pub created_at: u64,
    /// What the client called it; for people only.
    pub filename: String,
    /// What it is for.
    pub purpose: FilePurpose,
    /// Always `ready`: an upload that is accepted can be used.
    pub status: &'static str,
    /// Always empty; the hosted service explains failures here.
    pub status_details: &'static str,
}

impl FileObject {
    /// The value of `object`.
    pub const OBJECT: &'static str = "file";
}

/// What an upload is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FilePurpose {
    /// An image in a message.
    Image,
    /// A video in a message.
    Video,
}

/// The answer of `GET /v1/files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileList {
    /// Always `list`.
    pub object: &'static str,
    /// The caller's uploads, oldest first.
    pub data: Vec<FileObject>,
}

/// The answer of `DELETE /v1/files/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileDeleted {
    /// What was deleted.
    pub id: String,
    /// Always `file`.
    pub object: &'static str,
    /// Always true.
    pub deleted: bool,
}
