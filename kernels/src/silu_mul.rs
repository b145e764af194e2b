//! The gated activation of every feed-forward block.

use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor};

use crate::cpu::{RowsMut, RowsRef, expect_size};

/// `out = silu(gate) * up`, `silu(x) = x / (1 + e^-x)`. All f32 of one shape.
pub fn silu_mul(gate: &Tensor, up: &Tensor, out: &Tensor) -> Result<()> {
    out.inplace_op3(gate, up, &SiluMul)
}

/// Reference of [`silu_mul`] in candle's own ops.
pub fn silu_mul_reference(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()? * up
}

struct SiluMul;

impl InplaceOp3 for SiluMul {
    fn name(&self) -> &'static str {
        "silu_mul"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        layout: &Layout,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<()> {
        let gate = RowsRef::new(self.name(), (gate, gate_layout))?;
        let up = RowsRef::new(self.name(), (up, up_layout))?;
        let mut out = RowsMut::new(self.name(), out, layout)?;
        for (what, x) in [("gate", &gate), ("up", &up)] {
            expect_size(self.name(), &format!("rows of {what}"), x.rows, out.rows)?;
            expect_size(self.name(), &format!("width of {what}"), x.width, out.width)?;
        }
        for row in 0..out.rows {
            for ((out, gate), up) in out.row(row).iter_mut().zip(gate.row(row)).zip(up.row(row)) {
                *out = gate / (1.0 + (-gate).exp()) * up;
            }
        }
        Ok(())
    }
}
