//! Videos: which frames are seen, and how they are put together to clips.

use std::sync::Arc;

use image::RgbImage;
use kimi_tokens::Medium;

use super::patches::{self, FRAME_LIMIT, Fit};
use super::{MediaBudget, MediaError, PreparedMedia, animation, mp4, survive};

/// Frames a second that are seen.
const SEEN_PER_SECOND: f64 = 2.0;

/// Frames of one clip: the tower looks at them together.
const CLIP_FRAMES: usize = 4;

/// Frames a file may have: an hour at 30 a second.
pub(super) const MAX_FRAMES: usize = 108_000;

/// A stretch of a video.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    /// When it begins, in seconds.
    pub start: f64,
    /// Its frames.
    pub medium: Arc<Medium>,
}

/// Decodes a video and cuts the frames that are seen, two a second, into patches: clips of four.
///
/// Takes H.264 in MP4 or MOV, and animated GIF and WebP. Frames are decoded one after another; only patches are kept.
///
/// # Errors
/// [`MediaError`] if the bytes are no such video, or one that is too large for `budget`.
pub fn prepare_video(bytes: &[u8], budget: &mut MediaBudget) -> Result<PreparedMedia, MediaError> {
    let clips = survive(MediaError::BrokenVideo { frame: 0 }, || match image::guess_format(bytes) {
        Ok(image::ImageFormat::Gif | image::ImageFormat::WebP) => {
            clips(animation::open(bytes, budget)?, budget)
        }
        _ => clips(mp4::open(bytes)?, budget),
    })?;
    Ok(PreparedMedia::Video(clips.into()))
}

/// A video that can be decoded from its beginning.
pub(super) trait Footage {
    /// How many frames it has; at least one.
    fn frames(&self) -> usize;

    /// How many of them a second, on average.
    fn frames_per_second(&self) -> f64;

    /// Decodes it, and hands over the frames with these indices, which ascend.
    fn decode(
        self,
        indices: &[usize],
        budget: &mut MediaBudget,
        take: &mut dyn FnMut(RgbImage, &mut MediaBudget) -> Result<(), MediaError>,
    ) -> Result<(), MediaError>;
}

fn clips(footage: impl Footage, budget: &mut MediaBudget) -> Result<Vec<Clip>, MediaError> {
    let (frames, fps) = (footage.frames(), footage.frames_per_second());
    if frames > MAX_FRAMES {
        return Err(MediaError::TooManyFrames { frames, limit: MAX_FRAMES });
    }
    let indices = seen(frames, fps);
    let mut cutter =
        Cutter { indices: &indices, fps, fit: None, patches: Vec::new(), frames: 0, clips: Vec::new() };
    footage.decode(&indices, budget, &mut |frame, budget| cutter.add(frame, budget))?;
    Ok(cutter.clips)
}

/// Cuts frames into patches and patches into clips.
struct Cutter<'a> {
    /// Of the frames that come.
    indices: &'a [usize],
    fps: f64,
    /// The size of all frames; that of the first one decides.
    fit: Option<Fit>,
    /// Of the clip that has begun.
    patches: Vec<u8>,
    /// How many frames came.
    frames: usize,
    clips: Vec<Clip>,
}

impl Cutter<'_> {
    fn add(&mut self, frame: RgbImage, budget: &mut MediaBudget) -> Result<(), MediaError> {
        let fit = if let Some(fit) = self.fit {
            fit
        } else {
            let fit = Fit::new(frame.width(), frame.height(), FRAME_LIMIT);
            // Before the rest of a long video is decoded in vain.
            budget.take(fit.grid(1), self.indices.len(), CLIP_FRAMES)?;
            *self.fit.insert(fit)
        };
        fit.append(frame, &mut self.patches);
        self.frames += 1;
        if self.frames.is_multiple_of(CLIP_FRAMES) || self.frames == self.indices.len() {
            let first = self.clips.len() * CLIP_FRAMES;
            let grid = fit.grid(self.frames - first);
            let medium = Arc::new(patches::medium(grid, std::mem::take(&mut self.patches)));
            self.clips.push(Clip { start: self.indices[first] as f64 / self.fps, medium });
        }
        Ok(())
    }
}

/// Indices of the frames that are seen, as the reference chooses them: evenly spread, the first and the last included, halves
/// rounded to even as Python does.
fn seen(frames: usize, fps: f64) -> Vec<usize> {
    let count = frames as f64 * SEEN_PER_SECOND.min(fps) / fps;
    let count = (count.round_ties_even() as usize).max(1);
    let last = frames.saturating_sub(1);
    let step = last as f64 / (count.max(2) - 1) as f64;
    let index = |at: usize| (at as f64 * step).round_ties_even() as usize;
    // The last one is exact however the steps add up, as numpy's linspace has it.
    (0..count).map(|at| if at > 0 && at + 1 == count { last } else { index(at) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against numpy: `np.round(np.linspace(0, frames - 1, max(round(frames * min(2.0, fps) / fps), 1)))`.
    #[test]
    fn the_frames_that_are_seen_are_the_reference_s() {
        assert_eq!(seen(1, 30.0), [0]);
        assert_eq!(seen(7, 30.0), [0]);
        assert_eq!(seen(30, 30.0), [0, 29]);
        assert_eq!(seen(75, 30.0), [0, 18, 37, 56, 74]);
        assert_eq!(seen(5, 1.0), [0, 1, 2, 3, 4]);
        assert_eq!(seen(50, 25.0), [0, 16, 33, 49]);
        assert_eq!(seen(121, 23.976), [0, 13, 27, 40, 53, 67, 80, 93, 107, 120]);
    }

    /// A file that claims to be endless.
    struct Endless;

    impl Footage for Endless {
        fn frames(&self) -> usize {
            MAX_FRAMES + 1
        }

        fn frames_per_second(&self) -> f64 {
            1.0
        }

        fn decode(
            self,
            _: &[usize],
            _: &mut MediaBudget,
            _: &mut dyn FnMut(RgbImage, &mut MediaBudget) -> Result<(), MediaError>,
        ) -> Result<(), MediaError> {
            panic!("nothing of it is decoded")
        }
    }

    #[test]
    fn too_many_frames_are_refused_before_one_is_decoded() {
        let refused = clips(Endless, &mut MediaBudget::new(usize::MAX, Arc::default()));
        let frames = MAX_FRAMES + 1;
        assert_eq!(refused, Err(MediaError::TooManyFrames { frames, limit: MAX_FRAMES }));
    }
}
