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

/// Blocks of codes, and the scales of each.
pub(crate) type Blocks<'a, P> = (&'a [P], &'a [[u8; SCALES]]);

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

    /// The blocks of all rows.
    pub(crate) fn blocks<P: bytemuck::Pod>(self) -> Blocks<'a, P> {
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

#[cfg(test)]
pub(crate) mod example {
    use super::{CodeRows, CodeWidth, GROUP};
    use crate::{
        cpu::RowsRef,
        quantized_rows::{Block, QuantizedRows},
    };

    /// Rows in 8 bits, and weights to multiply them with.
    pub(crate) struct Example {
        pub(crate) columns: usize,
        x: QuantizedRows,
        codes: Vec<u8>,
        scales: Vec<u8>,
    }

    impl Example {
        pub(crate) fn new(rows: usize, features: usize, columns: usize) -> Self {
            let number = |i: usize| (i.wrapping_mul(2_654_435_761) % 4001) as f32 / 2000.0 - 1.0;
            let numbers: Vec<f32> = (0..rows * columns).map(number).collect();
            let code = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) as u8;
            let scale = |i: usize| half::bf16::from_f32(number(i).abs() + 0.1).to_le_bytes();
            Self {
                columns,
                x: QuantizedRows::new(RowsRef { data: &numbers, rows, width: columns, stride: columns }),
                codes: (0..features * columns).map(code).collect(),
                scales: (0..features * columns / GROUP).flat_map(scale).collect(),
            }
        }

        pub(crate) fn rows(&self, count: usize) -> Vec<&[Block]> {
            (0..count).map(|row| self.x.row(row)).collect()
        }

        pub(crate) fn weights(&self, width: CodeWidth) -> CodeRows<'_> {
            let bytes = match width {
                CodeWidth::Four => self.codes.len() / 2,
                CodeWidth::Eight => self.codes.len(),
            };
            CodeRows::new(width, &self.codes[..bytes], &self.scales, self.columns)
        }

        /// `x[row] · weights[feature]`, number by number.
        pub(crate) fn product(&self, width: CodeWidth, row: usize, feature: usize) -> f64 {
            let weights = self.weights(width).features(feature..feature + 1);
            let numbers = (0..self.columns).map(|column| {
                let (block, pair, is_odd) = (column / 128, column % 128 / 2, column % 2 == 1);
                let weight = match width {
                    CodeWidth::Four => {
                        let byte = weights.codes.items[column / 2];
                        i32::from(if is_odd { byte >> 4 } else { byte & 15 }) - 8
                    }
                    CodeWidth::Eight => {
                        let place = block * 128 + usize::from(is_odd) * 64 + pair;
                        i32::from(weights.codes.items[place]) - 128
                    }
                };
                let scale = half::bf16::from_le_bytes(weights.scales.items.as_chunks().0[column / GROUP]);
                let block = &self.x.row(row)[block];
                let code = if is_odd { block.odd } else { block.even }[pair];
                let x = f64::from(code) * f64::from(block.scales[column % 128 / GROUP]);
                x * f64::from(weight) * f64::from(scale.to_f32())
            });
            numbers.sum()
        }
    }
}
