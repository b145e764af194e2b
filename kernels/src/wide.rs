//! Products with many rows: weights are laid out anew, so that each lane has a feature of its own.
//!
//! A number of a row then meets the weights of many features at once, and nothing has to be moved between lanes. The layout is made
//! once for all rows. With AVX-512 and NEON, every partial sum is the one that a format's own tile makes, over the same columns in the
//! same order, and they are added in the same order: results agree to the last bit, so that a row's numbers do not depend on how many rows there are.

#![allow(unsafe_code, reason = "layouts are compiled for CPU features that their callers prove")]

use std::{cell::RefCell, ops::Range, thread::LocalKey};

use crate::{
    output::Output,
    stored::Stored,
    tiles::{self, Format},
};

/// Rows whose sums stay near while their columns are multiplied, chunk after chunk.
const ROWS: usize = 48;

/// A format whose weights can be laid out anew.
pub(crate) trait Wide: Format + 'static {
    /// Features that are laid out together.
    const FEATURES: usize;
    /// From this many rows on, the layout is worth its price.
    const MANY_ROWS: usize;
    /// Rows of the largest tile: 4, 6 or 8, so that there are enough sums in registers to multiply without waiting.
    const TILE_ROWS: usize;
    /// Inputs of a row that are multiplied with all rows before the next ones: their weights stay in the nearest cache.
    const CHUNK: usize;
    /// Some columns of the features.
    type Columns: Copy + 'static;
    /// A row's partial sums.
    type Sums: Copy + 'static;

    /// Memory that a thread keeps.
    fn scratch() -> &'static LocalKey<RefCell<Scratch<Self>>>;

    /// How many [`Self::Columns`] so many inputs are.
    fn columns(inputs: usize) -> usize;

    /// Lays out the columns of some inputs; the last feature fills the lanes that are left. Meanwhile it asks for a like part of what
    /// is laid out afterwards.
    ///
    /// # Safety
    /// As for [`Format::tile`].
    unsafe fn lay_out(
        weights: Self::Weights<'_>,
        inputs: Range<usize>,
        columns: &mut [Self::Columns],
        ahead: Option<Stored>,
    );

    /// The sums of `R` rows over a chunk of columns, added to what is there unless it is the first.
    ///
    /// # Safety
    /// As for [`Format::tile`].
    unsafe fn add<const R: usize>(
        x: [&[Self::Input]; R],
        columns: &[Self::Columns],
        sums: &mut [Self::Sums; R],
        is_first: bool,
    );

    /// Calls `put` with each row's results.
    ///
    /// # Safety
    /// As for [`Format::tile`].
    unsafe fn fold(sums: &[Self::Sums], put: impl FnMut(usize, &[f32]));
}

/// What is made on the way to a result.
pub(crate) struct Scratch<W: Wide + ?Sized> {
    /// Of all chunks, one after the other.
    columns: Vec<W::Columns>,
    sums: Vec<W::Sums>,
}

impl<W: Wide> Scratch<W> {
    pub(crate) const fn new() -> RefCell<Self> {
        RefCell::new(Self { columns: Vec::new(), sums: Vec::new() })
    }
}

/// `out[row, feature] = x[row] · weights[feature]`, with the layout where it is worth its price.
///
/// # Safety
/// The CPU must have what the format needs.
pub(crate) unsafe fn multiply<W: Wide>(
    x: &[&[W::Input]],
    weights: W::Weights<'_>,
    mut out: Output<'_>,
    next: Option<Stored>,
) {
    let features = out.features();
    let few = features % W::FEATURES;
    let wide = match x.len() {
        rows if rows < W::MANY_ROWS || x[0].is_empty() => 0,
        // So few features are not worth it either.
        _ if few <= W::FEATURES / 4 => features - few,
        _ => features,
    };
    if wide > 0 {
        W::scratch().with_borrow_mut(|scratch| {
            for first in (0..wide).step_by(W::FEATURES) {
                let some = first..wide.min(first + W::FEATURES);
                let ahead = if some.end < features { Some(W::stored(weights).after(some.end)) } else { next };
                let weights = (W::features(weights, some.clone()), ahead);
                // SAFETY: as this function's.
                unsafe { all_rows::<W>(x, weights, scratch, &mut out.part(some)) };
            }
        });
    }
    if wide < features {
        let (weights, out) = (W::features(weights, wide..features), out.part(wide..features));
        // SAFETY: as this function's.
        unsafe { tiles::multiply::<W>(x, weights, out, next) };
    }
}

/// All rows with up to [`Wide::FEATURES`] features.
///
/// # Safety
/// As [`multiply`].
unsafe fn all_rows<W: Wide>(
    x: &[&[W::Input]],
    (weights, ahead): (W::Weights<'_>, Option<Stored>),
    scratch: &mut Scratch<W>,
    out: &mut Output<'_>,
) {
    let inputs = x[0].len();
    let chunks = (0..inputs).step_by(W::CHUNK).map(|first| first..inputs.min(first + W::CHUNK));
    let columns = |inputs: &Range<usize>| W::columns(inputs.start)..W::columns(inputs.end);
    // SAFETY: zeros make vectors.
    let all_columns = unsafe { at_least(&mut scratch.columns, W::columns(inputs)) };
    for chunk in chunks.clone() {
        // SAFETY: as this function's.
        unsafe { W::lay_out(weights, chunk.clone(), &mut all_columns[columns(&chunk)], ahead) };
    }
    let rows = if inputs <= W::CHUNK { W::TILE_ROWS } else { ROWS };
    for (block, x) in x.chunks(rows).enumerate() {
        // SAFETY: as above.
        let sums = unsafe { at_least(&mut scratch.sums, x.len()) };
        for chunk in chunks.clone() {
            // SAFETY: as this function's.
            unsafe { add_rows::<W>(x, chunk.clone(), &all_columns[columns(&chunk)], sums) };
        }
        let features = out.features();
        // SAFETY: as this function's.
        unsafe { W::fold(sums, |row, results| out.put_row(block * rows + row, &results[..features])) };
    }
}

/// So many items, whatever is in them.
///
/// # Safety
/// Zeros make an item.
unsafe fn at_least<T: Copy>(items: &mut Vec<T>, count: usize) -> &mut [T] {
    if items.len() < count {
        // SAFETY: the caller's promise.
        items.resize(count, unsafe { std::mem::zeroed() });
    }
    &mut items[..count]
}

/// [`Wide::add`] for any number of rows.
///
/// # Safety
/// As [`multiply`].
unsafe fn add_rows<W: Wide>(
    x: &[&[W::Input]],
    inputs: Range<usize>,
    columns: &[W::Columns],
    sums: &mut [W::Sums],
) {
    let mut row = 0;
    while row < x.len() {
        // SAFETY: as this function's.
        row += unsafe {
            match x.len() - row {
                6.. if W::TILE_ROWS == 6 => some_rows::<W, 6>(x, row, inputs.clone(), columns, sums),
                8.. if W::TILE_ROWS == 8 => some_rows::<W, 8>(x, row, inputs.clone(), columns, sums),
                4.. => some_rows::<W, 4>(x, row, inputs.clone(), columns, sums),
                2..4 => some_rows::<W, 2>(x, row, inputs.clone(), columns, sums),
                _ => some_rows::<W, 1>(x, row, inputs.clone(), columns, sums),
            }
        };
    }
}

/// `R` rows from `first`. Returns `R`.
///
/// # Safety
/// As [`multiply`].
unsafe fn some_rows<W: Wide, const R: usize>(
    all: &[&[W::Input]],
    first: usize,
    inputs: Range<usize>,
    columns: &[W::Columns],
    sums: &mut [W::Sums],
) -> usize {
    let x: [&[W::Input]; R] = std::array::from_fn(|row| &all[first + row][inputs.clone()]);
    if let Some(sums) = sums[first..].first_chunk_mut() {
        // SAFETY: as this function's.
        unsafe { W::add::<R>(x, columns, sums, inputs.start == 0) };
    }
    R
}
