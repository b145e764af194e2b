//! Rotary position embedding in two dimensions, for patches of an image.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor, bail};

use crate::cpu::{RowsMut, expect_size};

/// Rotates heads in place: of each head's pairs `(x[2p], x[2p + 1])`, the even ones by `column · inv_freq[p / 2]` and the odd
/// ones by `row · inv_freq[p / 2]`. `x` is f32 `[tokens, heads * 4 * inv_freq.len()]`, a view into wider rows perhaps;
/// `places` has the `[column, row]` of each token.
///
/// # Errors
/// When the sizes do not fit each other.
pub fn rope_grid(x: &Tensor, places: &[[u32; 2]], inv_freq: &[f32]) -> Result<()> {
    x.inplace_op1(&RopeGrid { places, inv_freq })
}

/// Reference of [`rope_grid`]: both kinds of pairs by [`rope_interleaved`](crate::reference::rope_interleaved).
pub fn rope_grid_reference(x: &Tensor, places: &[[u32; 2]], inv_freq: &[f32]) -> Result<Tensor> {
    let table = crate::RopeTable { inv_freq: inv_freq.to_vec(), multiplier: 1.0 };
    let split = x.reshape((places.len(), (), inv_freq.len(), 2, 2))?; // [tokens, heads, frequencies, axes, 2]
    let axis = |axis: usize| {
        let positions: Vec<u32> = places.iter().map(|place| place[axis]).collect();
        let pairs = split.narrow(3, axis, 1)?.squeeze(3)?.flatten_from(2)?; // [tokens, heads, 2 * frequencies]
        let rotated = crate::reference::rope_interleaved(&pairs.contiguous()?, &positions, &table)?;
        rotated.reshape((places.len(), (), inv_freq.len(), 1, 2))
    };
    Tensor::cat(&[axis(0)?, axis(1)?], 3)?.reshape(x.shape())
}

struct RopeGrid<'a> {
    places: &'a [[u32; 2]],
    inv_freq: &'a [f32],
}

impl InplaceOp1 for RopeGrid<'_> {
    fn name(&self) -> &'static str {
        "rope_grid"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let x = RowsMut::new(self.name(), x, layout)?;
        let head = 4 * self.inv_freq.len();
        expect_size(self.name(), "tokens of x", x.rows, self.places.len())?;
        if head == 0 || !x.width.is_multiple_of(head) {
            bail!("rope_grid: width {} is not made of heads of {head}", x.width);
        }
        x.for_each_row(|row, x| {
            let angles = self.inv_freq.iter().flat_map(|inv| self.places[row].map(|at| at as f32 * inv));
            let rotation: Vec<_> = angles.map(f32::sin_cos).collect();
            x.chunks_exact_mut(head).for_each(|head| rotate(head, &rotation));
        });
        Ok(())
    }
}

/// Turns each pair by the angle with this sine and cosine.
fn rotate(head: &mut [f32], rotation: &[(f32, f32)]) {
    for (pair, (sin, cos)) in head.as_chunks_mut::<2>().0.iter_mut().zip(rotation) {
        let [even, odd] = *pair;
        *pair = [even * cos - odd * sin, odd * cos + even * sin];
    }
}
