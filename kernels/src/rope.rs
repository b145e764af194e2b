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

/// Rotates pairs `(x[2i], x[2i+1])` in place. `x` is f32 `[tokens, .., 2 * inv_freq.len()]`, a view into wider rows
/// perhaps; `positions` has one entry for each token.
///
/// Reference implementations write the result de-interleaved. The order is the same for queries and keys, so scores
/// do not depend on it, and in place is cheaper.
pub fn rope_interleaved(x: &Tensor, positions: &[u32], table: &RopeTable) -> Result<()> {
    x.inplace_op1(&Rope { positions, table })
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

struct Rope<'a> {
    positions: &'a [u32],
    table: &'a RopeTable,
}

impl InplaceOp1 for Rope<'_> {
    fn name(&self) -> &'static str {
        "rope_interleaved"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let mut x = RowsMut::new(self.name(), x, layout)?;
        expect_size(self.name(), "width of x", x.width, self.table.inv_freq.len() * 2)?;
        expect_size(self.name(), "tokens of x", layout.dims()[0], self.positions.len())?;
        let heads = x.rows / self.positions.len().max(1);
        let mut rotation = vec![(0.0, 0.0); self.table.inv_freq.len()];
        for (token, &position) in self.positions.iter().enumerate() {
            for (rotation, inv_freq) in rotation.iter_mut().zip(&self.table.inv_freq) {
                let (sin, cos) = (position as f32 * inv_freq).sin_cos();
                *rotation = (cos * self.table.multiplier, sin * self.table.multiplier);
            }
            for head in 0..heads {
                for (pair, (cos, sin)) in x.row(token * heads + head).chunks_exact_mut(2).zip(&rotation) {
                    let (even, odd) = (pair[0], pair[1]);
                    pair[0] = even * cos - odd * sin;
                    pair[1] = odd * cos + even * sin;
                }
            }
        }
        Ok(())
    }
}
