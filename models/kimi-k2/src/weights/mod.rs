//! Where weights come from: files, shards, tensors, and the hub they are fetched from.

mod checkpoint;
mod files;
mod finite;
pub(crate) mod hub;
mod identity;
mod index;
mod linear;
mod prefetch;
mod required;
mod shard;

pub(crate) use checkpoint::TensorSummary;
pub use checkpoint::{Checkpoint, StoredTensor};
pub use files::CheckpointFiles;
