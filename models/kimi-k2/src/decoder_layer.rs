//! One decoder layer: attention and a feed-forward block, each on normalized input, each added to the hidden state.

use candle_core::Tensor;
use kimi_kernels::add_assign;

use crate::{
    Checkpoint, ModelError, TapPoint, Taps,
    attention::{Attention, Step},
    mlp::Mlp,
    moe::MixtureOfExperts,
    norm::RmsNorm,
    share::Share,
    tensor_names as names,
};

#[derive(Debug)]
pub(crate) struct DecoderLayer {
    index: usize,
    input_norm: RmsNorm,
    attention: Attention,
    post_attention_norm: RmsNorm,
    feed_forward: FeedForward,
}

#[derive(Debug)]
enum FeedForward {
    Dense(Mlp),
    Experts(MixtureOfExperts),
}

impl DecoderLayer {
    /// What a rank holds of layer `layer`.
    pub(crate) fn load(checkpoint: &Checkpoint, layer: usize, share: Share) -> Result<Self, ModelError> {
        let config = checkpoint.config();
        let norm = |tensor| {
            RmsNorm::load(checkpoint, &names::layer(layer, tensor), config.hidden_size, config.rms_norm_eps)
        };
        let feed_forward = if config.is_moe_layer(layer) {
            FeedForward::Experts(MixtureOfExperts::load(checkpoint, layer, share)?)
        } else {
            let module = |projection: &str| names::mlp(layer, names::MLP, projection);
            let mlp = Mlp::load(checkpoint, module, config.hidden_size, config.intermediate_size)?;
            FeedForward::Dense(mlp.share(share)?)
        };
        Ok(Self {
            index: layer,
            input_norm: norm(names::INPUT_NORM)?,
            attention: Attention::load(checkpoint, layer, share)?,
            post_attention_norm: norm(names::POST_ATTENTION_NORM)?,
            feed_forward,
        })
    }

    /// Keeps what every token uses in 8 bits. Returns the bytes.
    pub(crate) fn quantize(&mut self) -> candle_core::Result<u64> {
        let feed_forward = match &mut self.feed_forward {
            FeedForward::Dense(mlp) => mlp.quantize()?,
            FeedForward::Experts(experts) => experts.quantize()?,
        };
        Ok(self.attention.quantize()? + feed_forward)
    }

    /// Updates the hidden state `x`, f32 `[rows, hidden]`, in place.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        step: &Step<'_>,
        cache: &Tensor,
        taps: &mut dyn Taps,
    ) -> Result<(), ModelError> {
        let normed = self.input_norm.forward(x)?; // [rows, hidden]
        let attended = self.attention.forward(&normed, step, cache)?; // [rows, hidden]
        step.collective.all_reduce_sum(&attended)?;
        taps.tap(TapPoint::Attention(self.index), &attended)?;
        add_assign(x, &attended)?;

        let normed = self.post_attention_norm.forward(x)?; // [rows, hidden]
        let transformed = match &self.feed_forward {
            FeedForward::Dense(mlp) => mlp.forward(&normed, step.activations)?,
            FeedForward::Experts(experts) => experts.forward(&normed, step.activations)?,
        }; // [rows, hidden]
        step.collective.all_reduce_sum(&transformed)?;
        taps.tap(TapPoint::FeedForward(self.index), &transformed)?;
        add_assign(x, &transformed)?;
        taps.tap(TapPoint::Layer(self.index), x)
    }
}
