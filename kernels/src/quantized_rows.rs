//! Activations in 8 bits, for products with 4-bit weights.

use crate::{cpu::RowsRef, threads, vectorized::vectorized};

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
    /// `-8 * Σ code` of each 8 columns. Weights are stored as `q + 8`; this takes the 8 away.
    pub(crate) correction: [i32; 16],
    /// The scale of each 8 columns.
    pub(crate) scales: [f32; 16],
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
        let zero = Block { even: [0; 64], odd: [0; 64], correction: [0; 16], scales: [0.0; 16] };
        let mut blocks = vec![zero; x.rows * row_blocks];
        threads::chunks_mut(&mut blocks, row_blocks.max(1), x.rows * x.width, |row, blocks| {
            for (numbers, block) in x.row(row).chunks(COLUMNS).zip(blocks) {
                if let Ok(numbers) = numbers.try_into() {
                    quantize(numbers, block);
                } else {
                    let mut padded = [0.0; COLUMNS];
                    padded[..numbers.len()].copy_from_slice(numbers);
                    quantize(&padded, block);
                }
            }
        });
        Self { blocks, row_blocks }
    }

    pub(crate) fn row(&self, row: usize) -> &[Block] {
        &self.blocks[row * self.row_blocks..][..self.row_blocks]
    }
}

vectorized! {
    fn quantize(numbers: &[f32; COLUMNS], block: &mut Block) {
        for group in 0..COLUMNS / GROUP {
            let numbers = &numbers[group * GROUP..][..GROUP];
            let mut largest = [0.0_f32; 8];
            let mut not_finite = [0.0_f32; 8];
            for eight in numbers.chunks_exact(8) {
                for lane in 0..8 {
                    largest[lane] = if eight[lane].abs() > largest[lane] { eight[lane].abs() } else { largest[lane] };
                    not_finite[lane] += eight[lane] * 0.0;
                }
            }
            let largest = largest.iter().fold(0.0_f32, |a, b| a.max(*b));
            let inverse = if largest > 0.0 { 1.0 / largest * 127.0 } else { 0.0 };
            let scale = largest / 127.0 + not_finite.iter().sum::<f32>();
            for eight in 0..GROUP / 8 {
                let mut sum = 0;
                for pair in 0..4 {
                    let at = group * GROUP / 2 + eight * 4 + pair;
                    let even = (numbers[eight * 8 + pair * 2] * inverse).round_ties_even() as i8;
                    let odd = (numbers[eight * 8 + pair * 2 + 1] * inverse).round_ties_even() as i8;
                    block.even[at] = even;
                    block.odd[at] = odd;
                    sum += i32::from(even) + i32::from(odd);
                }
                block.correction[group * 4 + eight] = -8 * sum;
                block.scales[group * 4 + eight] = scale;
            }
        }
    }
}
