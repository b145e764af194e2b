//! Tensor operations of the model, each with a readable reference.

mod weight;

pub use weight::{DenseDtype, SharedBytes, Weight, WeightData};
