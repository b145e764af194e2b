//! The gated feed-forward block: dense layers, shared experts and each routed expert.

use candle_core::Tensor;
use kimi_kernels::silu_mul;

use crate::{Checkpoint, CheckpointError, linear::Linear, tensor_names as names};

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
    ) -> Result<Self, CheckpointError> {
        Ok(Self {
            gate: Linear::load(checkpoint, &module(names::GATE_PROJ), inner, hidden)?,
            up: Linear::load(checkpoint, &module(names::UP_PROJ), inner, hidden)?,
            down: Linear::load(checkpoint, &module(names::DOWN_PROJ), hidden, inner)?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let gate = self.gate.forward(x)?; // [rows, inner]
        let up = self.up.forward(x)?; // [rows, inner]
        let product = gate.zeros_like()?; // [rows, inner]
        silu_mul(&gate, &up, &product)?;
        self.down.forward(&product) // [rows, hidden]
    }
}
