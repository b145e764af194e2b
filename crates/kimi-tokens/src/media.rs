//! Images and clips, ready for the vision tower.

use std::{fmt, ops::Range, sync::Arc};

/// Bytes of one patch: 3 colours of 14 × 14 pixels.
pub const PATCH_BYTES: usize = 3 * 14 * 14;

/// A medium at its place in a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptMedium {
    /// Where its placeholders are; as many as [`PatchGrid::tokens`].
    pub positions: Range<usize>,
    /// What is seen there. Shared: the same image may be in many prompts.
    pub medium: Arc<Medium>,
}

/// An image, or a clip of up to four frames of a video: resized, padded and cut into patches.
#[derive(Clone, PartialEq, Eq)]
pub struct Medium {
    /// How the patches lie.
    pub grid: PatchGrid,
    /// `[frames, rows of patches, columns of patches, 3, 14, 14]` as bytes; the tower sees `(byte / 255 − 0.5) · 2`.
    pub pixels: Vec<u8>,
    /// Names pixels and grid.
    pub hash: ContentHash,
}

impl fmt::Debug for Medium {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Pixels are the user's, and many.
        formatter.debug_struct("Medium").field("grid", &self.grid).finish_non_exhaustive()
    }
}

/// A collision-free name of what is seen: a cryptographic hash over the pixels **and** the grid, so that two media of the same
/// bytes in different shapes have different names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentHash(pub [u8; 32]);

/// How the patches of a medium lie in time and space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PatchGrid {
    /// 1 for an image, up to 4 for a clip.
    pub frames: usize,
    /// Rows of patches; even.
    pub height: usize,
    /// Columns of patches; even.
    pub width: usize,
}

impl PatchGrid {
    /// Patches, all frames together.
    pub fn patches(self) -> usize {
        self.frames * self.height * self.width
    }

    /// Positions it takes in a prompt: squares of 2 × 2 patches are merged, and so are the frames.
    pub fn tokens(self) -> usize {
        self.height * self.width / 4
    }
}
