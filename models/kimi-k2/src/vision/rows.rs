//! Work that is done for some rows at a time.

use std::ops::Range;

/// Rows of the wide intermediate values of a block that exist at a time.
pub(crate) const ROWS_AT_ONCE: usize = 1024;

/// `0..rows` in pieces of [`ROWS_AT_ONCE`].
pub(super) fn pieces(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(ROWS_AT_ONCE).map(move |first| first..rows.min(first + ROWS_AT_ONCE))
}
