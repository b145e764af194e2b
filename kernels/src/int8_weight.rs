//! Weights in 8 bits, made from others when a model is loaded: half the bytes of bf16, and products of bytes.

use std::sync::Arc;

use candle_core::Result;
use half::bf16;
use memmap2::MmapMut;

use crate::{
    SharedBytes, Weight, WeightData,
    codes::SCALES,
    quantized_rows::{COLUMNS, GROUP},
    threads,
    vectorized::vectorized,
    weight_rows::WeightRows,
};

/// Rows that a thread converts at a time.
const ROWS: usize = 16;

impl Weight {
    /// The same weight with 8 bits a number and a scale for each 32, as llama.cpp's `Q8_0` has it: `w ≈ q * scale`, where the
    /// largest of a group has the code ±127. `None` when its rows are not whole blocks of 128 columns. The memory of its own bytes is
    /// given back if they lie in a file: hardly anyone wants both.
    ///
    /// # Errors
    /// When its byte counts do not fit its shape.
    pub fn to_int8(&self) -> Result<Option<Self>> {
        let rows = WeightRows::new(self)?;
        if self.in_features == 0 || !self.in_features.is_multiple_of(COLUMNS) {
            return Ok(None);
        }
        let blocks = self.in_features / COLUMNS;
        let [mut codes, mut scales] = [COLUMNS, SCALES].map(|size| memory(self.out_features * blocks * size));
        let chunks = codes.chunks_mut(ROWS * blocks * COLUMNS).zip(scales.chunks_mut(ROWS * blocks * SCALES));
        let mut chunks: Vec<_> = chunks.collect();
        threads::chunks_mut(&mut chunks, 1, self.out_features * self.in_features, |chunk, out| {
            let (codes, scales) = &mut out[0];
            let rows_out =
                codes.chunks_exact_mut(blocks * COLUMNS).zip(scales.chunks_exact_mut(blocks * SCALES));
            let mut row = vec![0.0; self.in_features];
            for (index, (codes, scales)) in rows_out.enumerate() {
                rows.read(chunk * ROWS + index, &mut row);
                let out = codes.as_chunks_mut().0.iter_mut().zip(scales.as_chunks_mut().0);
                for (numbers, (codes, scales)) in row.as_chunks().0.iter().zip(out) {
                    encode(numbers, codes, scales);
                }
            }
        });
        let [codes, scales] = [codes, scales].map(|bytes| SharedBytes::new(Arc::new(bytes)));
        self.release();
        Ok(Some(Self { data: WeightData::Int8Group32 { codes, scales }, ..self.clone() }))
    }
}

/// Zeroed memory on large pages if the system has them: fewer addresses to look up while a weight is read.
///
/// # Panics
/// When there is no memory left, as any allocation does.
fn memory(bytes: usize) -> MmapMut {
    let memory = MmapMut::map_anon(bytes).expect("memory for weights in 8 bits");
    #[cfg(target_os = "linux")]
    // Without large pages it is slower, not wrong.
    let _ = memory.advise(memmap2::Advice::HugePage);
    memory
}

/// Where column `column` of a block has its code: even columns first.
const fn place(column: usize) -> usize {
    column % 2 * (COLUMNS / 2) + column / 2
}

vectorized! {
    fn encode(numbers: &[f32; COLUMNS], codes: &mut [u8; COLUMNS], scales: &mut [u8; SCALES]) {
        for (group, numbers) in numbers.as_chunks::<GROUP>().0.iter().enumerate() {
            let largest = numbers.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
            let scale = bf16::from_f32(largest / 127.0);
            scales[group * 2..][..2].copy_from_slice(&scale.to_le_bytes());
            let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
            for (column, number) in numbers.iter().enumerate() {
                // A scale that was rounded down would lead to 128.
                let code = (number * inverse).round_ties_even().clamp(-127.0, 127.0);
                codes[place(group * GROUP + column)] = (code + 128.0) as u8;
            }
        }
    }

    /// A row of [`WeightData::Int8Group32`] as f32.
    fn int8_row(codes: &[[u8; COLUMNS]], scales: &[[u8; SCALES]], out: &mut [f32]) {
        for ((codes, scales), out) in codes.iter().zip(scales).zip(out.as_chunks_mut::<COLUMNS>().0) {
            for (column, out) in out.iter_mut().enumerate() {
                let at = column / GROUP * 2;
                let scale = f32::from_bits(u32::from(u16::from_le_bytes([scales[at], scales[at + 1]])) << 16);
                *out = (f32::from(codes[place(column)]) - 128.0) * scale;
            }
        }
    }
}
