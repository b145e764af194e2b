//! Activations in bf16, for products with bf16 weights.

use crate::{cpu::RowsRef, vectorized::vectorized};

/// Columns of a [`Block`]: a vector of pairs.
pub(crate) const COLUMNS: usize = 32;

/// Columns of a row, in order.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Block([u16; COLUMNS]);

/// Rows in bf16. Columns after the last one are zero.
pub(crate) struct Bf16Rows {
    blocks: Vec<Block>,
    row_blocks: usize,
}

impl Bf16Rows {
    /// Rounds to the nearest, ties to even. What is not finite stays so.
    pub(crate) fn new(x: RowsRef<'_>) -> Self {
        let row_blocks = x.width.div_ceil(COLUMNS);
        let zero = Block([0; COLUMNS]);
        let blocks = x.in_blocks(COLUMNS, &zero, |numbers, block| round(numbers, &mut block.0));
        Self { blocks, row_blocks }
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &[Block]> {
        self.blocks.chunks_exact(self.row_blocks.max(1))
    }

    pub(crate) fn row(&self, row: usize) -> &[Block] {
        &self.blocks[row * self.row_blocks..][..self.row_blocks]
    }
}

/// The bits of the nearest bf16, ties to even. What is not finite stays so.
#[inline]
pub(crate) fn nearest_bf16(number: f32) -> u16 {
    let bits = number.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16;
    if number.is_nan() { 0x7fc0 } else { rounded as u16 }
}

vectorized! {
    fn round(numbers: &[f32], out: &mut [u16; COLUMNS]) {
        for (number, out) in numbers.iter().zip(out) {
            *out = nearest_bf16(*number);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn numbers_are_rounded_as_the_half_crate_rounds_them() {
        let numbers: Vec<f32> = (0..1 << 20).map(|i: u32| f32::from_bits(i.wrapping_mul(4097))).collect();
        let rows =
            Bf16Rows::new(RowsRef { data: &numbers, rows: 1, width: numbers.len(), stride: numbers.len() });
        for (number, bits) in numbers.iter().zip(rows.row(0).iter().flat_map(|block| block.0)) {
            let (expected, found) = (bf16::from_f32(*number), bf16::from_bits(bits));
            assert!(expected == found || expected.is_nan() && found.is_nan(), "{number:e}");
        }
    }
}
