//! What all media of one request may take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kimi_tokens::PatchGrid;

use super::MediaError;

/// Pixels of images that are decoded for one request: 20 images of the largest size, or 480 of a full screen.
const PIXELS: u64 = 1_000_000_000;

/// Patches that are kept for one request, 1.2 GB: more images than fit any context, or four minutes of a large video.
const PATCHES: usize = 2_000_000;

/// What all media of one request may take together, and what of it is used.
#[derive(Debug)]
pub struct MediaBudget {
    pixels: u64,
    patches: usize,
    tokens: usize,
    max_tokens: usize,
    stop: Arc<AtomicBool>,
}

impl MediaBudget {
    /// For a prompt of at most `max_tokens`. Decoding ends soon after `stop` becomes true.
    pub fn new(max_tokens: usize, stop: Arc<AtomicBool>) -> Self {
        Self { pixels: 0, patches: 0, tokens: 0, max_tokens, stop }
    }

    /// Takes the tokens and patches of `frames` pictures of this grid, of which `together` make one medium; to be asked before
    /// the work is done.
    pub(super) fn take(&mut self, grid: PatchGrid, frames: usize, together: usize) -> Result<(), MediaError> {
        self.tokens = self.tokens.saturating_add(frames.div_ceil(together).saturating_mul(grid.tokens()));
        self.patches = self.patches.saturating_add(frames.saturating_mul(grid.patches()));
        if self.tokens > self.max_tokens {
            return Err(MediaError::TooManyTokens { tokens: self.tokens, limit: self.max_tokens });
        }
        if self.patches > PATCHES {
            return Err(MediaError::TooManyPatches { patches: self.patches, limit: PATCHES });
        }
        Ok(())
    }

    /// Takes pixels that are about to be decoded.
    pub(super) fn take_pixels(&mut self, width: u32, height: u32) -> Result<(), MediaError> {
        self.check_stop()?;
        self.pixels += u64::from(width) * u64::from(height);
        if self.pixels > PIXELS {
            return Err(MediaError::TooManyPixels { limit: PIXELS });
        }
        Ok(())
    }

    /// Fails once nobody waits any longer.
    pub(super) fn check_stop(&self) -> Result<(), MediaError> {
        if self.stop.load(Ordering::Relaxed) { Err(MediaError::Stopped) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty bombs that are each just small enough are one that is not.
    #[test]
    fn what_each_may_take_all_together_may_not() {
        let mut budget = MediaBudget::new(usize::MAX, Arc::default());
        for _ in 0..20 {
            assert_eq!(budget.take_pixels(8000, 6250), Ok(()));
        }
        assert_eq!(budget.take_pixels(1, 1), Err(MediaError::TooManyPixels { limit: PIXELS }));

        let mut budget = MediaBudget::new(usize::MAX, Arc::default());
        let grid = PatchGrid { frames: 4, height: 50, width: 100 };
        assert_eq!(budget.take(grid, PATCHES / 20_000, 4), Ok(()));
        let patches = PATCHES + 20_000;
        assert_eq!(budget.take(grid, 1, 4), Err(MediaError::TooManyPatches { patches, limit: PATCHES }));
        let endless = budget.take(grid, usize::MAX, 4);
        assert!(matches!(endless, Err(MediaError::TooManyPatches { .. })), "{endless:?}");
    }
}
