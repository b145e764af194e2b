//! How all products of rows and weights are cut into tiles, whatever the two are made of.

use std::ops::Range;

use super::Avx512;
use crate::output::Output;

/// Features that are multiplied with all rows before the next ones: their weights stay in the second-level cache.
const FEATURES: usize = 32;

/// What rows and weights are made of, and the tile that multiplies them.
pub(super) trait Format {
    /// Rows of the largest tile whose sums stay in registers, 6 or 8.
    const ROWS: usize = 6;
    /// A part of a row.
    type Input;
    /// Weights of some features.
    type Weights<'a>: Copy;
    /// The weights of some of the features.
    fn features(weights: Self::Weights<'_>, range: Range<usize>) -> Self::Weights<'_>;

    /// `tile[f][r] = x[r] · weights[f]`, where each of `weights` holds one feature.
    ///
    /// # Safety
    /// The CPU must have the features that [`Avx512`] proves, and those that the format needs.
    unsafe fn tile<const R: usize, const F: usize>(
        x: [&[Self::Input]; R],
        weights: [Self::Weights<'_>; F],
    ) -> [[f32; R]; F];
}

/// Equal numbers of something for each feature, one feature after the other.
#[derive(Clone, Copy)]
pub(super) struct PerFeature<'a, T> {
    pub(super) items: &'a [T],
    pub(super) count: usize,
}

impl<T> PerFeature<'_, T> {
    pub(super) fn features(self, range: Range<usize>) -> Self {
        Self { items: &self.items[range.start * self.count..range.end * self.count], ..self }
    }
}

/// `out[row, feature] = x[row] · weights[feature]`.
///
/// # Safety
/// The CPU must have what the format needs beyond [`Avx512`].
pub(super) unsafe fn multiply<K: Format>(
    proof: Avx512,
    x: &[&[K::Input]],
    weights: K::Weights<'_>,
    mut out: Output<'_>,
) {
    for first in (0..out.features()).step_by(FEATURES) {
        let some = first..out.features().min(first + FEATURES);
        let weights = K::features(weights, some.clone());
        let mut out = out.part(some);
        let mut row = 0;
        while row < x.len() {
            // SAFETY: as this function's.
            row += unsafe {
                match x.len() - row {
                    8.. if K::ROWS == 8 => some_rows::<K, 8>(proof, x, row, weights, &mut out),
                    6.. => some_rows::<K, 6>(proof, x, row, weights, &mut out),
                    4..6 => some_rows::<K, 4>(proof, x, row, weights, &mut out),
                    2..4 => some_rows::<K, 2>(proof, x, row, weights, &mut out),
                    _ => some_rows::<K, 1>(proof, x, row, weights, &mut out),
                }
            };
        }
    }
}

/// `R` rows from `first` with up to [`FEATURES`] features. Returns `R`.
///
/// # Safety
/// As [`multiply`].
unsafe fn some_rows<K: Format, const R: usize>(
    _: Avx512,
    all: &[&[K::Input]],
    first: usize,
    weights: K::Weights<'_>,
    out: &mut Output<'_>,
) -> usize {
    const F: usize = 4;
    let x: [&[K::Input]; R] = std::array::from_fn(|row| all[first + row]);
    let weights = |feature: usize| K::features(weights, feature..feature + 1);
    let features = out.features();
    for feature in (0..features / F * F).step_by(F) {
        let weights: [_; F] = std::array::from_fn(|f| weights(feature + f));
        // SAFETY: as this function's.
        out.put((first, feature), &unsafe { K::tile::<R, F>(x, weights) });
    }
    for feature in features / F * F..features {
        // SAFETY: as this function's.
        out.put((first, feature), &unsafe { K::tile::<R, 1>(x, [weights(feature)]) });
    }
    R
}
