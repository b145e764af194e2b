#![doc = include_str!("../README.md")]

mod attention;
mod batch;
mod collective;
mod config;
mod decoder_layer;
mod error;
mod inspect;
mod kv_pool;
mod linear;
mod mlp;
mod model;
mod model_error;
mod moe;
mod norm;
mod rope;
mod share;
mod taps;
pub mod tensor_names;
mod vision;
mod weights;

pub use attention::AttentionForm;
pub use batch::{Batch, FeatureRows, SequenceSpan, UNIFORM_ROWS};
pub use collective::{Collective, Solo};
pub use config::{ModelConfig, ModelType, ModulePattern, Quantization, VisionConfig, YarnScaling};
pub use error::CheckpointError;
pub use inspect::{Inspection, Part, PartSize, inspect};
pub use kimi_kernels::{
    Activations, KeptTensor, OwnThreads, for_each_item, multiplies_bytes, thread_count, use_threads,
};
pub use kv_pool::{CacheDtype, KvPool};
pub use model::{KimiModel, ModelOptions};
pub use model_error::ModelError;
pub use taps::{NoTaps, TapPoint, Taps};
pub use weights::{
    Checkpoint, CheckpointFiles, StoredTensor,
    hub::{DEFAULT_REVISION, DownloadProgress, Hub, HubConfig, HubError},
};
