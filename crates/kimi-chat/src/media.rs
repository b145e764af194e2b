//! Images and videos of a request, decoded and cut into patches for the vision tower. Pure: bytes in, patches out.

mod animation;
mod bicubic;
mod budget;
mod error;
mod image;
mod mp4;
mod patches;
mod video;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kimi_tokens::Medium;

pub use budget::MediaBudget;
pub use error::MediaError;
pub use image::prepare_image;
pub use video::{Clip, prepare_video};

/// What a part of a message shows, ready for the prompt. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub enum PreparedMedia {
    /// An image.
    Image(Arc<Medium>),
    /// A video: its clips in the order they are shown.
    Video(Arc<[Clip]>),
}

/// Pixels of a side, and of the whole, that an image or a frame may have; decoders are given no more memory than that takes.
pub(crate) const MAX_SIDE: u32 = 8192;
pub(crate) const MAX_PIXELS: u64 = 50_000_000;

/// Refuses what is too large to be decoded; to be asked before any pixel is.
fn check_size(width: u32, height: u32) -> Result<(), MediaError> {
    let pixels = u64::from(width) * u64::from(height);
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE || pixels > MAX_PIXELS {
        return Err(MediaError::Size { width, height });
    }
    Ok(())
}

/// Other people's decoders panic on some hostile bytes (the fuzzer found a palette); that means that these are damaged.
fn survive<T>(damaged: MediaError, prepare: impl FnOnce() -> Result<T, MediaError>) -> Result<T, MediaError> {
    catch_unwind(AssertUnwindSafe(prepare)).unwrap_or(Err(damaged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_that_panics_has_found_damaged_bytes() {
        let damaged = MediaError::BrokenVideo { frame: 0 };
        assert_eq!(survive(damaged.clone(), || -> Result<(), _> { panic!("on purpose") }), Err(damaged));
        assert_eq!(survive(MediaError::Stopped, || Ok(5)), Ok(5));
    }
}
