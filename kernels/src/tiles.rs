//! How all products of rows and weights are cut into tiles, whatever the two are made of.

#![allow(unsafe_code, reason = "tiles are compiled for CPU features that their callers prove")]

use std::ops::Range;

use crate::{output::Output, stored::Stored};

/// Features that are multiplied with all rows before the next ones: their weights stay in the second-level cache.
const FEATURES: usize = 32;
/// Bytes ahead of what is read that weights are asked for: some hundred nanoseconds of a core's share of the memory.
const AHEAD: usize = 16384;

/// What rows and weights are made of, and the tile that multiplies them.
pub(crate) trait Format {
    /// Rows of the largest tile whose sums stay in registers: 4, 6 or 8.
    const ROWS: usize = 6;
    /// A part of a row.
    type Input;
    /// Weights of some features.
    type Weights<'a>: Copy;
    /// The weights of some of the features.
    fn features(weights: Self::Weights<'_>, range: Range<usize>) -> Self::Weights<'_>;

    /// Where they are stored.
    fn stored(weights: Self::Weights<'_>) -> Stored;

    /// `tile[f][r] = x[r] · weights[f]`, where each of `weights` holds one feature. Meanwhile it asks for as many bytes `ahead`, in
    /// the order of the memory: with short rows on small pages, the processor's own guesses come late, and requests in the order
    /// in which the tile reads several rows at once get three quarters of what these get.
    ///
    /// # Safety
    /// The CPU must have the features that the format needs.
    unsafe fn tile<const R: usize, const F: usize>(
        x: [&[Self::Input]; R],
        weights: [Self::Weights<'_>; F],
        ahead: Option<Stored>,
    ) -> [[f32; R]; F];
}

/// Equal numbers of something for each feature, one feature after the other.
#[derive(Clone, Copy)]
pub(crate) struct PerFeature<'a, T> {
    pub(crate) items: &'a [T],
    pub(crate) count: usize,
}

impl<T> PerFeature<'_, T> {
    pub(crate) fn features(self, range: Range<usize>) -> Self {
        Self { items: &self.items[range.start * self.count..range.end * self.count], ..self }
    }
}

/// `out[row, feature] = x[row] · weights[feature]`. `next` is what will be multiplied afterwards.
///
/// # Safety
/// The CPU must have what the format needs.
pub(crate) unsafe fn multiply<K: Format>(
    x: &[&[K::Input]],
    weights: K::Weights<'_>,
    mut out: Output<'_>,
    next: Option<Stored>,
) {
    let stored = K::stored(weights);
    for first in (0..out.features()).step_by(FEATURES) {
        let some = first..out.features().min(first + FEATURES);
        let next = if some.end < out.features() { Some(stored.after(some.end)) } else { next };
        let weights = (K::features(weights, some.clone()), next);
        let mut out = out.part(some);
        let mut row = 0;
        while row < x.len() {
            // SAFETY: as this function's.
            row += unsafe {
                match x.len() - row {
                    8.. if K::ROWS == 8 => some_rows::<K, 8>(x, row, weights, &mut out),
                    6.. if K::ROWS >= 6 => some_rows::<K, 6>(x, row, weights, &mut out),
                    4.. => some_rows::<K, 4>(x, row, weights, &mut out),
                    2..4 => some_rows::<K, 2>(x, row, weights, &mut out),
                    _ => some_rows::<K, 1>(x, row, weights, &mut out),
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
    all: &[&[K::Input]],
    first: usize,
    (weights, next): (K::Weights<'_>, Option<Stored>),
    out: &mut Output<'_>,
) -> usize {
    const F: usize = 4;
    let stored = K::stored(weights);
    let x: [&[K::Input]; R] = std::array::from_fn(|row| all[first + row]);
    let weights = |feature: usize| K::features(weights, feature..feature + 1);
    let features = out.features();
    for feature in (0..features / F * F).step_by(F) {
        let weights: [_; F] = std::array::from_fn(|f| weights(feature + f));
        // Other rows find the weights in a cache.
        let ahead = if first == 0 { ahead::<F>(stored, feature..features, next) } else { None };
        // SAFETY: as this function's.
        out.put((first, feature), &unsafe { K::tile::<R, F>(x, weights, ahead) });
    }
    for feature in features / F * F..features {
        // SAFETY: as this function's.
        out.put((first, feature), &unsafe { K::tile::<R, 1>(x, [weights(feature)], None) });
    }
    R
}

/// What to ask for while the first `F` of these features are multiplied: what is read some tiles later, here or in `next`.
fn ahead<const F: usize>(stored: Stored, features: Range<usize>, next: Option<Stored>) -> Option<Stored> {
    let bytes = F * stored.row;
    if bytes > AHEAD {
        // Long rows: what the tile itself reads later, then the next one.
        return Some(stored.after(features.start).after_bytes(AHEAD));
    }
    let then = features.start + AHEAD.div_ceil(bytes.max(1)) * F;
    if then < features.end {
        Some(stored.after(then))
    } else {
        next.map(|next| next.after(then - features.end))
    }
}
