//! Receiving a file: `multipart/form-data`, written to disk while it arrives.

use std::io::{self, Write};
use std::time::Duration;

use axum::extract::Request;
use axum::http::header;
use kimi_api::FileObject;
use multer::{Constraints, Field, Multipart, SizeLimit};
use tempfile::NamedTempFile;
use tokio::time::timeout;
use uuid::Uuid;

use super::seconds_since_1970;
use crate::ApiError;
use crate::auth::Caller;
use crate::file_kind::{self, HEAD_BYTES};
use crate::file_store::FileStore;

/// An upload of which nothing arrives for this long is given up.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// Bytes that are gathered before they are written.
const WRITE_AT: usize = 1 << 20;

/// Bytes of the form beside the file: the purpose, names, borders.
const FORM_BYTES: u64 = 64 * 1024;

/// Characters of a file's name that are kept.
const MAX_NAME_CHARS: usize = 255;

/// Reads the form and keeps its file.
pub(super) async fn receive(
    files: &FileStore,
    caller: Caller,
    request: Request,
    request_id: &str,
) -> Result<FileObject, ApiError> {
    files.check_room(caller, 0)?;
    let limit = files.limits().file_bytes;
    let mut form = form(request, limit)?;
    let (mut purpose, mut content) = (None, None);
    while let Some(field) = arriving(form.next_field(), limit).await? {
        match field.name() {
            Some("purpose") => purpose = Some(arriving(field.text(), limit).await?),
            Some("file") => {
                let upload = Upload::begin(files, &field).map_err(|error| disk_error(&error, request_id))?;
                content = Some(upload.read(field, limit, request_id).await?);
            }
            _ => {}
        }
    }
    let missing = |field| ApiError::invalid(format!("Invalid request: the form has no field '{field}'"));
    let purpose = file_kind::purpose(&purpose.ok_or_else(|| missing("purpose"))?)?;
    let content = content.ok_or_else(|| missing("file"))?;
    if content.bytes == 0 {
        return Err(ApiError::invalid("File size is zero, please confirm and re-upload the file"));
    }
    let mime_type = file_kind::mime_type(&content.head, purpose)?;
    let object = FileObject {
        id: format!("file-{}", Uuid::new_v4().simple()),
        object: FileObject::OBJECT,
        bytes: content.bytes,
        created_at: seconds_since_1970(),
        filename: content.name,
        purpose,
        status: "ready",
        status_details: "",
    };
    files.keep(caller, object, mime_type, content.file.into_temp_path())
}

fn form(request: Request, file_bytes: u64) -> Result<Multipart<'static>, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = content_type.and_then(|value| multer::parse_boundary(value).ok()).ok_or_else(|| {
        ApiError::invalid(
            "Invalid request: the body must be a form, multipart/form-data, with the fields file and purpose",
        )
    })?;
    // A file that is too large is read on for a while, so that the client gets the answer and not a reset connection.
    let limit = SizeLimit::new().whole_stream(2 * file_bytes + FORM_BYTES).for_field("purpose", 64);
    let constraints = Constraints::new().size_limit(limit);
    Ok(Multipart::with_constraints(request.into_body().into_data_stream(), boundary, constraints))
}

/// Waits for more of the form. `limit` is the most bytes a file may have.
async fn arriving<T>(
    next: impl Future<Output = Result<T, multer::Error>>,
    limit: u64,
) -> Result<T, ApiError> {
    let next = timeout(STALLED_AFTER, next).await.map_err(|_elapsed| {
        let seconds = STALLED_AFTER.as_secs();
        ApiError::invalid(format!("Invalid request: nothing more of the body arrived for {seconds} seconds"))
    })?;
    next.map_err(|error| match error {
        multer::Error::StreamSizeExceeded { .. } => too_large(limit),
        multer::Error::FieldSizeExceeded { .. } => {
            ApiError::invalid("Invalid purpose: only 'image' and 'video' accepted")
        }
        _ => ApiError::invalid("Invalid request: the form could not be read; it must be multipart/form-data"),
    })
}

/// The hosted service's words, with this server's limit in them.
fn too_large(limit: u64) -> ApiError {
    let megabytes = limit / 1_000_000;
    ApiError::invalid(format!(
        "File size is too large, max file size is {megabytes}MB, please confirm and re-upload the file"
    ))
}

/// A file that is being received.
struct Upload {
    name: String,
    file: NamedTempFile,
    head: Vec<u8>,
    bytes: u64,
}

impl Upload {
    fn begin(files: &FileStore, field: &Field<'_>) -> io::Result<Self> {
        let name = display_name(field.file_name().unwrap_or_default());
        Ok(Self { name, file: files.begin()?, head: Vec::new(), bytes: 0 })
    }

    async fn read(mut self, mut field: Field<'_>, limit: u64, request_id: &str) -> Result<Self, ApiError> {
        let mut gathered = Vec::new();
        while let Some(piece) = arriving(field.chunk(), limit).await? {
            self.bytes += piece.len() as u64;
            if self.bytes > limit {
                continue;
            }
            let room = HEAD_BYTES - self.head.len();
            self.head.extend_from_slice(&piece[..piece.len().min(room)]);
            gathered.extend_from_slice(&piece);
            if gathered.len() >= WRITE_AT {
                self = self.write(std::mem::take(&mut gathered), request_id).await?;
            }
        }
        if self.bytes > limit {
            return Err(too_large(limit));
        }
        self.write(gathered, request_id).await
    }

    /// Writes where waiting for the disk stops nobody.
    async fn write(mut self, bytes: Vec<u8>, request_id: &str) -> Result<Self, ApiError> {
        let write = move || self.file.write_all(&bytes).map(|()| self);
        let written = tokio::task::spawn_blocking(write).await;
        written
            .unwrap_or_else(|panic| Err(io::Error::other(panic)))
            .map_err(|error| disk_error(&error, request_id))
    }
}

/// What a client calls a file, for people to read: without directories and control characters.
fn display_name(sent: &str) -> String {
    let last = sent.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = last.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect();
    if name.is_empty() { "file".to_owned() } else { name }
}

fn disk_error(error: &io::Error, request_id: &str) -> ApiError {
    tracing::error!(%error, "an upload could not be written");
    ApiError::internal(request_id, "The file could not be stored")
}
