//! The gated feed-forward block: dense layers, shared experts and each routed expert.

use candle_core::Tensor;
use kimi_kernels::{Activations, GatedMlp, KeptTensor, gated_mlps};

use crate::{Checkpoint, ModelError, linear::Linear, share::Share, tensor_names as names};

/// `down(silu(gate(x)) * up(x))`.
#[derive(Debug)]
pub(crate) struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    /// `module` names a projection of this block.
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        module: impl Fn(&str) -> String,
        hidden: usize,
        inner: usize,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            gate: Linear::load(checkpoint, &module(names::GATE_PROJ), inner, hidden)?,
            up: Linear::load(checkpoint, &module(names::UP_PROJ), inner, hidden)?,
            down: Linear::load(checkpoint, &module(names::DOWN_PROJ), hidden, inner)?,
        })
    }

    /// The part of the block that a rank holds; those of all ranks add up to the block.
    pub(crate) fn share(&self, share: Share) -> Result<Self, ModelError> {
        let inner = share.of_inner(self.gate.weight().out_features);
        Ok(Self {
            gate: self.gate.outputs(inner.clone())?,
            up: self.up.outputs(inner.clone())?,
            down: self.down.inputs(inner)?,
        })
    }

    /// Keeps its weights in 8 bits. Returns their bytes.
    pub(crate) fn quantize(&mut self) -> candle_core::Result<u64> {
        Ok(self.gate.quantize()? + self.up.quantize()? + self.down.quantize()?)
    }

    /// The block with the tokens that go through it, and what it counts for each.
    pub(crate) fn with<'a>(&'a self, rows: &'a [u32], shares: &'a [f32]) -> GatedMlp<'a> {
        GatedMlp { gate: self.gate.weight(), up: self.up.weight(), down: self.down.weight(), rows, shares }
    }

    /// All rows of `x`, f32 `[rows, hidden]`.
    pub(crate) fn forward(&self, x: &Tensor, activations: Activations) -> candle_core::Result<KeptTensor> {
        let rows: Vec<u32> = (0..x.dim(0)? as u32).collect();
        let out = KeptTensor::new(x.shape())?; // [rows, hidden]
        gated_mlps(x, &[self.with(&rows, &vec![1.0; rows.len()])], activations, &out)?;
        Ok(out)
    }
}
