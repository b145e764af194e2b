//! What an uploaded file is, from its first bytes; its name and what the client says of it do not count.

use kimi_api::FilePurpose;

use crate::ApiError;

/// Bytes from the start of a file that tell what it is.
pub(crate) const HEAD_BYTES: usize = 8192;

const IMAGES: [&str; 5] = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];
/// Containers; what is in them shows when they are decoded.
const VIDEOS: [&str; 6] =
    ["video/mp4", "video/x-m4v", "video/quicktime", "video/3gpp", "image/gif", "image/webp"];

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
            (&IMAGES[..], "invalid image: the file is no PNG, JPEG, WebP, GIF or BMP image")
        }
        FilePurpose::Video => (
            &VIDEOS[..],
            "invalid video: the file is no MP4 or MOV video and no animated GIF or WebP. To convert: ffmpeg -i in \
             -c:v libx264 -pix_fmt yuv420p out.mp4",
        ),
    };
    found
        .filter(|mime_type| known.contains(mime_type))
        .ok_or_else(|| ApiError::invalid(format!("Invalid request: {refusal}")))
}
