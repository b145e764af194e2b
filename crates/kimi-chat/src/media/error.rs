//! Why an image or a video is not taken.

use super::{MAX_PIXELS, MAX_SIDE};

/// Why an image or a video is not taken. Every text can be shown to the client; clients recognise "invalid image" and "failed to
/// decode image" and go on without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// None of the formats.
    #[error("failed to decode image: the data is no PNG, JPEG, WebP, GIF or BMP image")]
    UnknownImage,
    /// One of the formats, but damaged, cut off, or of a rare kind.
    #[error(
        "failed to decode image: the {format} data is damaged, cut off, or of a kind that is not supported"
    )]
    BrokenImage {
        /// For people: `PNG`.
        format: &'static str,
    },
    /// More pixels than are decoded, or none.
    #[error(
        "invalid image: {width} × {height} pixels; a side may have 1 to {MAX_SIDE}, and both at most {} million together",
        MAX_PIXELS / 1_000_000
    )]
    Size {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// None of the formats, or one whose contents nobody here decodes.
    #[error(
        "failed to decode video: {what}; this server takes H.264 in MP4 or MOV, and animated GIF and WebP. To convert: \
         ffmpeg -i in -c:v libx264 -pix_fmt yuv420p out.mp4"
    )]
    UnknownVideo {
        /// What was found.
        what: &'static str,
    },
    /// Damaged or cut off.
    #[error("failed to decode video: the data is damaged or cut off near frame {frame}")]
    BrokenVideo {
        /// The first frame that is not whole, from 0.
        frame: usize,
    },
    /// More frames than are looked at.
    #[error(
        "invalid video: {frames} frames; at most {limit} are taken: send a part of it, or lower its frame rate"
    )]
    TooManyFrames {
        /// As the file says.
        frames: usize,
        /// The most that are taken.
        limit: usize,
    },
    /// All media of the request together.
    #[error(
        "invalid image: the request's images have more than {limit} pixels in all; send fewer or smaller ones"
    )]
    TooManyPixels {
        /// The most that are decoded for one request.
        limit: u64,
    },
    /// All media of the request together, as they are kept.
    #[error(
        "invalid video: the request's media have {patches} patches of 14 × 14 pixels; at most {limit} are taken: send a shorter \
         video, or a smaller one"
    )]
    TooManyPatches {
        /// Of all media so far.
        patches: usize,
        /// The most that are kept for one request.
        limit: usize,
    },
    /// The media leave no room in the context.
    #[error("the request's images and videos take {tokens} tokens or more; at most {limit} fit")]
    TooManyTokens {
        /// Of all media so far.
        tokens: usize,
        /// The most a prompt may have.
        limit: usize,
    },
    /// Whoever asked for it does not wait any longer.
    #[error("decoding took too long; send fewer, shorter or smaller media")]
    Stopped,
}
