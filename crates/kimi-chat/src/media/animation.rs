//! Animated GIF and WebP images as videos.

use std::io::Cursor;
use std::time::Duration;

use image::codecs::{gif::GifDecoder, webp::WebPDecoder};
use image::{AnimationDecoder, DynamicImage, Frames, ImageDecoder, ImageError, ImageFormat, RgbImage};

use super::image::limits;
use super::video::{Footage, MAX_FRAMES};
use super::{MediaBudget, MediaError, check_size};

/// What browsers take a picture to be shown for when the file says (almost) nothing.
const DEFAULT_DELAY: Duration = Duration::from_millis(100);

/// Delays below this count as nothing.
const LEAST_DELAY: Duration = Duration::from_millis(11);

/// An animation whose pictures were counted.
pub(super) struct Animation<'a> {
    bytes: &'a [u8],
    frames: usize,
    lasts: Duration,
}

/// Counts the pictures, for which they must be decoded once.
pub(super) fn open<'a>(bytes: &'a [u8], budget: &mut MediaBudget) -> Result<Animation<'a>, MediaError> {
    let (mut frames, mut lasts) = (0, Duration::ZERO);
    for frame in pictures(bytes)? {
        let frame = frame.map_err(|_| MediaError::BrokenVideo { frame: frames })?;
        budget.take_pixels(frame.buffer().width(), frame.buffer().height())?;
        frames += 1;
        if frames > MAX_FRAMES {
            return Err(MediaError::TooManyFrames { frames, limit: MAX_FRAMES });
        }
        let delay = Duration::from(frame.delay());
        lasts += if delay < LEAST_DELAY { DEFAULT_DELAY } else { delay };
    }
    if frames == 0 {
        return Err(MediaError::BrokenVideo { frame: 0 });
    }
    Ok(Animation { bytes, frames, lasts })
}

impl Footage for Animation<'_> {
    fn frames(&self) -> usize {
        self.frames
    }

    fn frames_per_second(&self) -> f64 {
        self.frames as f64 / self.lasts.as_secs_f64()
    }

    fn decode(
        self,
        indices: &[usize],
        budget: &mut MediaBudget,
        take: &mut dyn FnMut(RgbImage, &mut MediaBudget) -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        let mut wanted = indices.iter().copied().peekable();
        for (index, frame) in pictures(self.bytes)?.enumerate() {
            let frame = frame.map_err(|_| MediaError::BrokenVideo { frame: index })?;
            budget.take_pixels(frame.buffer().width(), frame.buffer().height())?;
            if wanted.next_if_eq(&index).is_some() {
                take(DynamicImage::ImageRgba8(frame.into_buffer()).into_rgb8(), budget)?;
            }
        }
        Ok(())
    }
}

/// The pictures, each as it is seen: with what earlier ones left around it.
fn pictures(bytes: &[u8]) -> Result<Frames<'_>, MediaError> {
    let broken = |_: ImageError| MediaError::BrokenVideo { frame: 0 };
    if image::guess_format(bytes).is_ok_and(|format| format == ImageFormat::Gif) {
        let decoder = GifDecoder::new(Cursor::new(bytes)).map_err(broken)?;
        Ok(ready(decoder)?.into_frames())
    } else {
        let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(broken)?;
        if !decoder.has_animation() {
            return Err(MediaError::UnknownVideo { what: "the data is a WebP image that does not move" });
        }
        Ok(ready(decoder)?.into_frames())
    }
}

fn ready<D: ImageDecoder>(mut decoder: D) -> Result<D, MediaError> {
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    decoder.set_limits(limits()).map_err(|_| MediaError::Size { width, height })?;
    Ok(decoder)
}
