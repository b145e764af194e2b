#![doc = include_str!("../README.md")]

mod batch;
mod config;
mod error;
pub mod tensor_names;

pub use batch::{Batch, SequenceSpan};
pub use config::{ModelConfig, ModelType, ModulePattern, Quantization, VisionConfig, YarnScaling};
pub use error::CheckpointError;
