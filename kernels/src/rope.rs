//! Rotary position embedding on interleaved pairs, as the checkpoint's weights expect it.

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Tensor};

use crate::cpu::{RowsMut, expect_size};

/// The rotation of each pair: angle `position * inv_freq[pair]`, length `multiplier`.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    /// Radians a position, one for each pair of the rotated dimensions.
    pub inv_freq: Vec<f32>,
    /// Factor on cosine and sine (YaRN's attention factor; 1 for Kimi).
    pub multiplier: f32,
}

/// How a step's tokens are rotated, the same in every layer.
#[derive(Clone, Debug)]
pub struct Rotations {
    /// Cosine and sine of each pair's angle, times the multiplier, `[tokens, pairs]`.
    pairs: Vec<(f32, f32)>,
    tokens: usize,
}

impl RopeTable {
    /// For tokens at these positions: each pair's angle in radians is `position * inv_freq[pair]`.
    pub fn rotations(&self, positions: &[u32]) -> Rotations {
        let angles = positions.iter().flat_map(|at| self.inv_freq.iter().map(move |inv| *at as f32 * inv));
        let pairs = angles.map(|angle| {
            let (sin, cos) = angle.sin_cos();
            (cos * self.multiplier, sin * self.multiplier)
        });
        Rotations { pairs: pairs.collect(), tokens: positions.len() }
    }
}

impl Rotations {
    fn of(&self, token: usize) -> &[(f32, f32)] {
        let pairs = self.pairs.len() / self.tokens.max(1);
        &self.pairs[token * pairs..][..pairs]
    }
}

/// Rotates pairs `(x[2i], x[2i+1])` in place. `x` is f32 `[tokens, .., 2 * pairs]`, a view into wider rows perhaps.
///
/// Reference implementations write the result de-interleaved. The order is the same for queries and keys, so scores
/// do not depend on it, and in place is cheaper.
///
/// # Errors
/// When `x` has another number of tokens or pairs than `rotations`.
pub fn rope_interleaved(x: &Tensor, rotations: &Rotations) -> Result<()> {
    x.inplace_op1(&Rope(rotations))
}

/// Reference of [`rope_interleaved`] in candle's own ops: pairs multiplied by `e^(i·angle)`.
pub fn rope_reference(x: &Tensor, positions: &[u32], table: &RopeTable) -> Result<Tensor> {
    let pairs = table.inv_freq.len();
    let heads = x.elem_count() / (positions.len() * pairs * 2);
    let positions: Vec<f32> = positions.iter().map(|&position| position as f32).collect();
    let angles = Tensor::new(positions, &Device::Cpu)?
        .reshape(((), 1, 1))?
        .broadcast_mul(&Tensor::new(table.inv_freq.as_slice(), &Device::Cpu)?)?; // [tokens, 1, pairs]
    let cos = (angles.cos()? * f64::from(table.multiplier))?;
    let sin = (angles.sin()? * f64::from(table.multiplier))?;
    let split = x.reshape(((), heads, pairs, 2))?; // [tokens, heads, pairs, 2]
    let (even, odd) = (split.narrow(3, 0, 1)?.squeeze(3)?, split.narrow(3, 1, 1)?.squeeze(3)?);
    let rotated_even = (even.broadcast_mul(&cos)? - odd.broadcast_mul(&sin)?)?;
    let rotated_odd = (odd.broadcast_mul(&cos)? + even.broadcast_mul(&sin)?)?;
    Tensor::stack(&[rotated_even, rotated_odd], 3)?.reshape(x.shape())
}

struct Rope<'a>(&'a Rotations);

impl InplaceOp1 for Rope<'_> {
    fn name(&self) -> &'static str {
        "rope_interleaved"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let x = RowsMut::new(self.name(), x, layout)?;
        let Self(rotations) = self;
        expect_size(self.name(), "tokens of x", layout.dims()[0], rotations.tokens)?;
        let heads = x.rows / rotations.tokens.max(1);
        expect_size(self.name(), "numbers of x", x.rows * x.width, 2 * rotations.pairs.len() * heads)?;
        x.for_each_row(|row, x| {
            for (pair, (cos, sin)) in x.chunks_exact_mut(2).zip(rotations.of(row / heads)) {
                let (even, odd) = (pair[0], pair[1]);
                pair[0] = even * cos - odd * sin;
                pair[1] = odd * cos + even * sin;
            }
        });
        Ok(())
    }
}
