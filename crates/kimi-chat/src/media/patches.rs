//! From pixels to patches: the size rule, padding, order.

use image::RgbImage;
use kimi_tokens::{ContentHash, Medium, PATCH_BYTES, PatchGrid};
use sha2::{Digest, Sha256};

use super::bicubic;

/// Pixels of a patch's side.
const PATCH: u32 = 14;

/// Patches of a side that become one token: sides are padded to a multiple of so many patches.
const MERGE: u32 = 2;

/// Patches that a side may have.
const SIDE_LIMIT: u32 = 512;

/// Patches that an image may have before it is padded.
pub(super) const IMAGE_LIMIT: u32 = 16_384;

/// Patches that a frame of a video may have before it is padded.
pub(super) const FRAME_LIMIT: u32 = 4096;

/// The size to which an image is scaled down, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Fit {
    /// The size for an image of `width` × `height` pixels and at most `limit` patches: the preprocessor of K2.6. Never
    /// larger; the aspect is kept up to the cut to whole pixels.
    pub(super) fn new(width: u32, height: u32, limit: u32) -> Self {
        let side = f64::from(SIDE_LIMIT * PATCH);
        let patches = f64::from((width / PATCH).max(1)) * f64::from((height / PATCH).max(1));
        let by_count = (f64::from(limit) / patches).sqrt();
        let scale = by_count.min(side / f64::from(width)).min(side / f64::from(height)).min(1.0);
        let scaled = |length: u32| ((f64::from(length) * scale) as u32).clamp(1, SIDE_LIMIT * PATCH);
        Self { width: scaled(width), height: scaled(height) }
    }

    /// The patches of `frames` images of this size, padded.
    pub(super) fn grid(self, frames: usize) -> PatchGrid {
        let patches = |length: u32| (length.div_ceil(PATCH * MERGE) * MERGE) as usize;
        PatchGrid { frames, height: patches(self.height), width: patches(self.width) }
    }

    /// Scales an image of any size to this one and appends its patches `[rows, columns, 3, 14, 14]`; what is beyond the image
    /// is 0.
    pub(super) fn append(self, image: RgbImage, patches: &mut Vec<u8>) {
        let image = bicubic::resize(image, self.width, self.height);
        let grid = self.grid(1);
        let start = patches.len();
        patches.resize(start + grid.patches() * PATCH_BYTES, 0);
        let (patch, plane) = (PATCH as usize, (PATCH * PATCH) as usize);
        for (y, row) in image.as_raw().chunks_exact(self.width as usize * 3).enumerate() {
            let first = start + (y / patch) * grid.width * PATCH_BYTES + (y % patch) * patch;
            for (column, pixels) in row.chunks(patch * 3).enumerate() {
                let place = first + column * PATCH_BYTES;
                for (x, pixel) in pixels.chunks_exact(3).enumerate() {
                    for (colour, &sample) in pixel.iter().enumerate() {
                        patches[place + colour * plane + x] = sample;
                    }
                }
            }
        }
    }
}

/// A medium of these patches, named.
pub(super) fn medium(grid: PatchGrid, pixels: Vec<u8>) -> Medium {
    let mut hash = Sha256::new();
    for length in [grid.frames, grid.height, grid.width] {
        hash.update((length as u64).to_le_bytes());
    }
    hash.update(&pixels);
    Medium { grid, pixels, hash: ContentHash(hash.finalize().into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache that looks at bytes alone takes one picture for another (CVE-2025-46722).
    #[test]
    fn the_same_bytes_in_another_shape_have_another_name() {
        let name = |frames, height, width| {
            medium(PatchGrid { frames, height, width }, vec![7; 16 * PATCH_BYTES]).hash
        };
        let names = [name(1, 4, 4), name(1, 2, 8), name(1, 8, 2), name(4, 2, 2)];
        assert!((1..4).all(|at| !names[..at].contains(&names[at])));
        assert_eq!(name(1, 4, 4), names[0]);
    }
}
