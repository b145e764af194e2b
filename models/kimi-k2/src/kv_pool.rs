//! The cache: what attention keeps of every token.

use candle_core::{DType, Device, Tensor};

use crate::{ModelConfig, ModelError};

/// Number format of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheDtype {
    /// Exact; twice the memory.
    F32,
    /// What the reference stack stores.
    #[default]
    Bf16,
}

impl CacheDtype {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    fn tensor_dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// Paged memory for latents and rotated keys: one tensor `[blocks, block_size, kv_lora + rope]` a layer. Who may use
/// which block is the scheduler's business; batches bring block tables.
#[derive(Debug)]
pub struct KvPool {
    layers: Vec<Tensor>,
    block_count: usize,
    block_size: usize,
}

impl KvPool {
    /// Zeroed memory for `block_count` blocks of `block_size` tokens in every layer.
    ///
    /// # Errors
    /// When a size is zero or the tensors cannot be made.
    pub fn new(
        config: &ModelConfig,
        block_count: usize,
        block_size: usize,
        dtype: CacheDtype,
    ) -> Result<Self, ModelError> {
        if block_count == 0 || block_size == 0 {
            return Err(ModelError::Batch(format!(
                "a cache of {block_count} blocks of {block_size} tokens holds nothing"
            )));
        }
        let shape = (block_count, block_size, config.cache_width());
        let layers = (0..config.num_layers)
            .map(|_| Tensor::zeros(shape, dtype.tensor_dtype(), &Device::Cpu))
            .collect::<Result<_, _>>()?;
        Ok(Self { layers, block_count, block_size })
    }

    /// Bytes that one token takes in all layers together.
    pub fn bytes_per_token(config: &ModelConfig, dtype: CacheDtype) -> usize {
        config.num_layers * config.cache_width() * dtype.size()
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        self.block_count
    }

    /// Tokens a block holds.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Layer `layer`'s tensor. Takes `&mut self` because ops write to it through candle's shared tensors.
    pub(crate) fn layer(&mut self, layer: usize) -> &Tensor {
        &self.layers[layer]
    }
}
