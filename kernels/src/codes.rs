//! Weights stored as codes of 4 or 8 bits, in blocks of 128 columns with a bf16 scale for each 32: where their bytes lie.

use std::ops::Range;

use crate::{
    quantized_rows::{COLUMNS, GROUP},
    stored::Stored,
    tiles::PerFeature,
};

/// Bytes of a block's scales.
pub(crate) const SCALES: usize = COLUMNS / GROUP * 2;

/// Bits of a code.
#[derive(Clone, Copy)]
pub(crate) enum CodeWidth {
    /// Lowest nibble first, stored as `q + 8`.
    Four,
    /// Those of a block's even columns, then those of its odd ones, stored as `q + 128`.
    Eight,
}

/// Rows of whole blocks.
#[derive(Clone, Copy)]
pub(crate) struct CodeRows<'a> {
    pub(crate) width: CodeWidth,
    pub(crate) codes: PerFeature<'a, u8>,
    pub(crate) scales: PerFeature<'a, u8>,
}

impl<'a> CodeRows<'a> {
    /// The bytes of rows of so many columns.
    pub(crate) fn new(width: CodeWidth, codes: &'a [u8], scales: &'a [u8], columns: usize) -> Self {
        let row = match width {
            CodeWidth::Four => columns / 2,
            CodeWidth::Eight => columns,
        };
        Self {
            width,
            codes: PerFeature { items: codes, count: row },
            scales: PerFeature { items: scales, count: columns / GROUP * 2 },
        }
    }

    /// Some of the rows.
    pub(crate) fn features(self, range: Range<usize>) -> Self {
        let Self { width, codes, scales } = self;
        Self { width, codes: codes.features(range.clone()), scales: scales.features(range) }
    }

    /// Where they are stored.
    pub(crate) fn stored(self) -> Stored {
        Stored::new((self.codes.items, self.codes.count), (self.scales.items, self.scales.count))
    }

    /// Blocks of a row.
    pub(crate) fn row_blocks(self) -> usize {
        self.scales.count / SCALES
    }

    /// The blocks of all rows: their codes, and their scales.
    pub(crate) fn blocks<P: bytemuck::Pod>(self) -> (&'a [P], &'a [[u8; SCALES]]) {
        (bytemuck::cast_slice(self.codes.items), self.scales.items.as_chunks().0)
    }
}

impl Stored {
    /// Asks for the codes of the `place`-th block, of so many bytes, and, once for eight blocks, for a line of scales.
    #[inline]
    pub(crate) fn ask_block(self, place: usize, bytes: usize) {
        self.ask(place * bytes, bytes);
        if place.is_multiple_of(8) {
            self.ask_scales(place * SCALES, 8 * SCALES);
        }
    }
}
