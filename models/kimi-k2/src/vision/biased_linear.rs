//! A linear layer with a bias.

use candle_core::{DType, Device, Tensor};
use kimi_kernels::{Activation, Activations, Weight, add_bias, linear};

use crate::{Checkpoint, CheckpointError, tensor_names as names};

/// `y = activation(x · Wᵀ + b)`. The weight stays in the mapped file.
#[derive(Debug)]
pub(super) struct BiasedLinear {
    weight: Weight,
    bias: Vec<f32>,
    activation: Activation,
}

impl BiasedLinear {
    /// `module` is the name without `.weight` and `.bias`; the shape is `[out, in]`.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        module: &str,
        [out_features, in_features]: [usize; 2],
    ) -> Result<Self, CheckpointError> {
        let weight = checkpoint.linear(module, out_features, in_features)?;
        Self::with_weight(checkpoint, module, weight)
    }

    /// A convolution over `[channels, height, width]` whose windows do not overlap: a product with each window's numbers.
    pub(super) fn convolution(
        checkpoint: &Checkpoint,
        module: &str,
        out_features: usize,
        window: [usize; 3],
    ) -> Result<Self, CheckpointError> {
        let weight = checkpoint.convolution(module, out_features, window)?;
        Self::with_weight(checkpoint, module, weight)
    }

    fn with_weight(checkpoint: &Checkpoint, module: &str, weight: Weight) -> Result<Self, CheckpointError> {
        let bias = checkpoint.vector_f32(&names::bias(module), weight.out_features)?;
        Ok(Self { weight, bias, activation: Activation::None })
    }

    /// The same layer with the tanh approximation of GELU behind it.
    pub(super) fn then_gelu(self) -> Self {
        Self { activation: Activation::GeluTanh, ..self }
    }

    /// f32 `[rows, in]` to a new f32 `[rows, out]`.
    pub(super) fn forward(&self, x: &Tensor, activations: Activations) -> candle_core::Result<Tensor> {
        let out = Tensor::zeros((x.dim(0)?, self.weight.out_features), DType::F32, &Device::Cpu)?;
        self.forward_into(x, activations, &out)?;
        Ok(out)
    }

    /// [`forward`](Self::forward) to a place of the caller's.
    pub(super) fn forward_into(
        &self,
        x: &Tensor,
        activations: Activations,
        out: &Tensor,
    ) -> candle_core::Result<()> {
        linear(x, &self.weight, activations, out)?;
        add_bias(out, &self.bias, self.activation)
    }
}
