//! The Kimi K2 model family: configuration, weights, forward pass.

mod batch;

pub use batch::{Batch, SequenceSpan};
