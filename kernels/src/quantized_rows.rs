//! Activations in 8 bits, for products with 4-bit weights.

use crate::{avx512::Avx512, cpu::RowsRef, vectorized::vectorized};

/// Columns that share a scale: as many as in a weight.
pub(crate) const GROUP: usize = 32;
/// Columns of a [`Block`]: 64 bytes of codes.
pub(crate) const COLUMNS: usize = 128;

/// 128 columns of a row, in the order in which a vector of packed weights meets them. `x ≈ code * scale`, where the
/// largest of a group has the code ±127.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Block {
    /// Codes of columns 0, 2, 4, …: those of low nibbles.
    pub(crate) even: [i8; 64],
    /// Codes of columns 1, 3, 5, …
    pub(crate) odd: [i8; 64],
    /// `-8 * Σ code` of each group. Weights are stored as `q + 8`; this takes the 8 away.
    pub(crate) correction: [i32; COLUMNS / GROUP],
    /// The scale of each group.
    pub(crate) scales: [f32; COLUMNS / GROUP],
}

/// Rows in 8 bits. Columns after the last one count nothing.
pub(crate) struct QuantizedRows {
    blocks: Vec<Block>,
    row_blocks: usize,
}

impl QuantizedRows {
    /// Rounds every group of 32 columns to 8 bits. A group with a number that is not finite gets the scale NaN, so
    /// that what becomes of it is not finite either.
    pub(crate) fn new(x: RowsRef<'_>) -> Self {
        let row_blocks = x.width.div_ceil(COLUMNS);
        let zero = Block { even: [0; 64], odd: [0; 64], correction: [0; 4], scales: [0.0; 4] };
        let blocks = x.in_blocks(COLUMNS, &zero, |numbers, block| {
            if let Ok(numbers) = numbers.try_into() {
                quantize(numbers, block);
            } else {
                let mut padded = [0.0; COLUMNS];
                padded[..numbers.len()].copy_from_slice(numbers);
                quantize(&padded, block);
            }
        });
        Self { blocks, row_blocks }
    }

    pub(crate) fn row(&self, row: usize) -> &[Block] {
        &self.blocks[row * self.row_blocks..][..self.row_blocks]
    }
}

fn quantize(numbers: &[f32; COLUMNS], block: &mut Block) {
    if let Some(avx512) = Avx512::detect() {
        return avx512.quantize(numbers, block);
    }
    quantize_plain(numbers, block);
}

vectorized! {
    fn quantize_plain(numbers: &[f32; COLUMNS], block: &mut Block) {
        for (group, numbers) in numbers.as_chunks::<GROUP>().0.iter().enumerate() {
            // As bits, magnitudes are in the same order, with what is not finite above; and LLVM knows the largest integer of a
            // vector, but keeps to the order of comparisons of f32.
            let largest = numbers.iter().fold(0, |largest, number| number.abs().to_bits().max(largest));
            let largest = f32::from_bits(largest);
            let (inverse, scale) = inverse_and_scale(largest, largest.is_finite());
            let code = |number: f32| (number * inverse).round_ties_even() as i8;
            let mut sum = 0;
            for (pair, [even, odd]) in numbers.as_chunks().0.iter().enumerate() {
                let (even, odd) = (code(*even), code(*odd));
                block.even[group * GROUP / 2 + pair] = even;
                block.odd[group * GROUP / 2 + pair] = odd;
                sum += i32::from(even) + i32::from(odd);
            }
            block.correction[group] = -8 * sum;
            block.scales[group] = scale;
        }
    }
}

/// What a group's numbers are multiplied with to become codes, and what codes are multiplied with to become numbers.
pub(crate) fn inverse_and_scale(largest: f32, finite: bool) -> (f32, f32) {
    let inverse = if largest > 0.0 { 1.0 / largest * 127.0 } else { 0.0 };
    (inverse, if finite { largest / 127.0 } else { f32::NAN })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_make_the_same_blocks() {
        let zero = Block { even: [0; 64], odd: [0; 64], correction: [0; 4], scales: [0.0; 4] };
        for seed in 0..200_u32 {
            let number =
                |i: usize| (seed.wrapping_mul(2_654_435_761) ^ (i as u32).wrapping_mul(40_503)) % 4001;
            let magnitude = [0.0, 1e-30, 1.0, 3e4][seed as usize % 4];
            let numbers = std::array::from_fn(|i| (number(i) as f32 - 2000.0) / 2000.0 * magnitude);
            let [mut found, mut expected] = [zero.clone(), zero.clone()];
            quantize(&numbers, &mut found);
            quantize_plain(&numbers, &mut expected);
            assert_eq!((found.even, found.odd), (expected.even, expected.odd));
            assert_eq!((found.correction, found.scales), (expected.correction, expected.scales));
        }
    }
}
