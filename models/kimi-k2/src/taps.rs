//! Looking at intermediate values, to compare them with another implementation layer by layer.

use candle_core::Tensor;

use crate::ModelError;

/// A place in the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TapPoint {
    /// Token embeddings, `[rows, hidden]`.
    Embedding,
    /// What the attention of this layer adds, `[rows, hidden]`.
    Attention(usize),
    /// What the feed-forward block of this layer adds, `[rows, hidden]`.
    FeedForward(usize),
    /// The hidden state after this layer, `[rows, hidden]`.
    Layer(usize),
    /// The sampled rows after the final norm, `[sample_rows, hidden]`.
    FinalNorm,
}

/// Sees values as they are made.
pub trait Taps {
    /// `value` is f32 and valid during the call only: the model overwrites hidden states in place. Copy to keep it.
    ///
    /// # Errors
    /// Whatever the implementation likes; it ends the forward pass.
    fn tap(&mut self, point: TapPoint, value: &Tensor) -> Result<(), ModelError>;
}

/// Looks at nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTaps;

impl Taps for NoTaps {
    fn tap(&mut self, _point: TapPoint, _value: &Tensor) -> Result<(), ModelError> {
        Ok(())
    }
}
