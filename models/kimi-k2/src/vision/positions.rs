//! Where a patch is in its frame, from a learned table, and when, from sines and cosines.

use candle_core::{Device, Tensor};

use crate::{Checkpoint, CheckpointError, VisionConfig, tensor_names as names};

/// Coefficient of the cubic convolution, as in `PyTorch`'s `interpolate(mode="bicubic")`. (Images are resized with −0.5.)
const CUBIC: f32 = -0.75;

/// A learned vector for each place of a frame of `[rows, columns]`; frames of other sizes interpolate.
#[derive(Debug)]
pub(super) struct PositionTable {
    /// `[rows, columns, width]`.
    numbers: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl PositionTable {
    pub(super) fn load(checkpoint: &Checkpoint, config: &VisionConfig) -> Result<Self, CheckpointError> {
        let (rows, columns) = (config.pos_emb_height, config.pos_emb_width);
        let numbers = checkpoint.numbers_f32(names::PATCH_POSITIONS, &[rows, columns, config.hidden_size])?;
        Ok(Self { numbers, rows, columns })
    }

    /// Vectors of a frame of `height` × `width` patches, f32 `[height * width, width of the tower]`: cubic convolution along both
    /// axes, corners not aligned, borders repeated. A frame of the table's size gets the table itself.
    pub(super) fn at(&self, height: usize, width: usize) -> candle_core::Result<Tensor> {
        let depth = self.numbers.len() / (self.rows * self.columns);
        let line = self.columns * depth;
        let columns: Vec<Samples> =
            (0..width).map(|column| Samples::new(column, self.columns, width)).collect();
        let mut out = vec![0.0; height * width * depth];
        let mut row = vec![0.0; line]; // [columns, depth]
        for (y, out) in out.chunks_exact_mut(width * depth).enumerate() {
            Samples::new(y, self.rows, height).mix(&self.numbers, &mut row);
            for (samples, out) in columns.iter().zip(out.chunks_exact_mut(depth)) {
                samples.mix(&row, out);
            }
        }
        Tensor::from_vec(out, (height * width, depth), &Device::Cpu)
    }
}

/// Four neighbours on an axis, and what each counts.
struct Samples {
    indices: [usize; 4],
    weights: [f32; 4],
}

impl Samples {
    /// For place `at` of `wanted`, on an axis of `stored` places.
    fn new(at: usize, stored: usize, wanted: usize) -> Self {
        let source = (at as f32 + 0.5) * (stored as f32 / wanted as f32) - 0.5;
        let (first, rest) = (source.floor(), source - source.floor());
        let last = stored as isize - 1;
        let indices = [-1, 0, 1, 2].map(|offset| (first as isize + offset).clamp(0, last) as usize);
        let near = |x: f32| ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1.0;
        let far = |x: f32| ((CUBIC * x - 5.0 * CUBIC) * x + 8.0 * CUBIC) * x - 4.0 * CUBIC;
        Self { indices, weights: [far(rest + 1.0), near(rest), near(1.0 - rest), far(2.0 - rest)] }
    }

    /// `out = Σ weight · items[index]`, where an item has as many numbers as `out`.
    fn mix(&self, items: &[f32], out: &mut [f32]) {
        out.fill(0.0);
        for (index, weight) in self.indices.into_iter().zip(self.weights) {
            let item = &items[index * out.len()..][..out.len()];
            out.iter_mut().zip(item).for_each(|(out, number)| *out += weight * number);
        }
    }
}

/// `[sin(frame · ω), cos(frame · ω)]` with `ω_k = 10000^(−k / (width / 2))`.
pub(super) fn time_embedding(frame: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let angle = |k: usize| frame as f32 / 10_000_f32.powf(k as f32 / half as f32);
    (0..half).map(|k| angle(k).sin()).chain((0..half).map(|k| angle(k).cos())).collect()
}
