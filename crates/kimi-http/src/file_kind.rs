//! What an uploaded file is, from its first bytes; its name and what the client says of it do not count.

use kimi_api::FilePurpose;

use crate::ApiError;

/// Bytes from the start of a file that tell what it is.
pub(crate) const HEAD_BYTES: usize = 8192;

const IMAGES: [&str; 6] = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/heif"];
const VIDEOS: [&str; 9] = [
    "video/mp4",
    "video/x-m4v",
    "video/mpeg",
    "video/quicktime",
    "video/x-msvideo",
    "video/x-flv",
    "video/webm",
    "video/x-ms-wmv",
    "video/3gpp",
];

/// `purpose` as sent.
pub(crate) fn purpose(name: &str) -> Result<FilePurpose, ApiError> {
    match name {
        "image" => Ok(FilePurpose::Image),
        "video" => Ok(FilePurpose::Video),
        _ => Err(ApiError::invalid("Invalid purpose: only 'image' and 'video' accepted")),
    }
}

/// The MIME type of a file that begins with `head`, if it is fit for `purpose`.
pub(crate) fn mime_type(head: &[u8], purpose: FilePurpose) -> Result<&'static str, ApiError> {
    // A container the sniffer does not tell from its relatives.
    let found = if head.get(4..11) == Some(b"ftyp3gp") {
        Some("video/3gpp")
    } else {
        infer::get(head).map(|kind| kind.mime_type())
    };
    let (known, refusal) = match purpose {
        FilePurpose::Image => {
            (&IMAGES[..], "invalid image: the file is no PNG, JPEG, WebP, GIF, BMP, HEIC or HEIF image")
        }
        FilePurpose::Video => {
            (&VIDEOS[..], "invalid video: the file is no MP4, MPEG, MOV, AVI, FLV, WebM, WMV or 3GPP video")
        }
    };
    found
        .filter(|mime_type| known.contains(mime_type))
        .ok_or_else(|| ApiError::invalid(format!("Invalid request: {refusal}")))
}
