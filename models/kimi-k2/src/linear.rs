//! A linear layer of the model: a stored weight and the op that multiplies with it.

use std::ops::Range;

use candle_core::Tensor;
use kimi_kernels::{Activations, KeptTensor, Weight};

use crate::{Checkpoint, ModelError};

/// `y = x · Wᵀ`, without bias. The weight stays in the mapped file, in its format.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
}

impl Linear {
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        module: &str,
        out_features: usize,
        in_features: usize,
    ) -> Result<Self, ModelError> {
        Ok(Self { weight: checkpoint.linear(module, out_features, in_features)? })
    }

    /// The layer that computes only these outputs.
    pub(crate) fn outputs(&self, outputs: Range<usize>) -> Result<Self, ModelError> {
        self.part(outputs, 0..self.weight.in_features)
    }

    /// The layer that computes what only these inputs add to its outputs. Unless they are all, their weights are copied.
    pub(crate) fn inputs(&self, inputs: Range<usize>) -> Result<Self, ModelError> {
        self.part(0..self.weight.out_features, inputs)
    }

    fn part(&self, outputs: Range<usize>, inputs: Range<usize>) -> Result<Self, ModelError> {
        let part = self.weight.part(outputs, inputs).map_err(|error| {
            ModelError::Ranks(format!("this checkpoint cannot be shared by so many ranks: {error}"))
        });
        Ok(Self { weight: part? })
    }

    /// Keeps the weight in 8 bits from now on, in memory of its own, if its rows are whole blocks. Returns the bytes.
    pub(crate) fn quantize(&mut self) -> candle_core::Result<u64> {
        let Some(weight) = self.weight.to_int8()? else { return Ok(0) };
        self.weight = weight;
        Ok(self.weight.bytes())
    }

    /// For ops that multiply in their own way.
    pub(crate) fn weight(&self) -> &Weight {
        &self.weight
    }

    /// f32 `[rows, in]` to f32 `[rows, out]`.
    pub(crate) fn forward(&self, x: &Tensor, activations: Activations) -> candle_core::Result<KeptTensor> {
        let out = KeptTensor::new((x.dim(0)?, self.weight.out_features))?;
        kimi_kernels::linear(x, &self.weight, activations, &out)?;
        Ok(out)
    }

    /// What two layers make of the same rows, f32 `[rows, out]` each, views of one tensor.
    pub(crate) fn forward_both(
        both: [&Self; 2],
        x: &Tensor,
        activations: Activations,
    ) -> candle_core::Result<[KeptTensor; 2]> {
        let [first, second] = both.map(|linear| linear.weight.out_features);
        let out = KeptTensor::new((x.dim(0)?, first + second))?;
        kimi_kernels::linears(x, &both.map(|linear| &linear.weight), activations, &out)?;
        Ok([out.narrow(1, 0, first)?, out.narrow(1, first, second)?])
    }
}
