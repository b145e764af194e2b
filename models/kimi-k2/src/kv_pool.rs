//! The cache: what attention keeps of every token.

use std::thread;

use candle_core::{DType, Tensor};
use kimi_kernels::{fp8_entry_bytes, provide_caches, read_block, write_block, zeroed_cache};

use crate::{ModelConfig, ModelError};

/// Number format of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CacheDtype {
    /// Exact; twice the memory.
    F32,
    /// What the reference stack stores.
    #[default]
    Bf16,
    /// The latent as e4m3 with a scale for 128 numbers, the rotated key part as bf16.
    Fp8,
}

impl CacheDtype {
    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
        }
    }

    fn tensor_dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::Fp8 => DType::U8,
        }
    }

    /// Elements of the tensor that one token takes in one layer.
    fn entry_width(self, config: &ModelConfig) -> usize {
        match self {
            Self::F32 | Self::Bf16 => config.cache_width(),
            Self::Fp8 => fp8_entry_bytes(config.kv_lora_rank, config.qk_rope_head_dim),
        }
    }
}

/// Paged memory for latents and rotated keys: one tensor `[blocks, block_size, entry]` a layer, an entry being
/// `kv_lora + rope` numbers, or bytes in 8 bits. Who may use which block is the scheduler's business; batches bring block
/// tables.
#[derive(Debug)]
pub struct KvPool {
    layers: Vec<Tensor>,
    block_count: usize,
    block_size: usize,
    bytes_per_block: usize,
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
        let shape = (block_count, block_size, dtype.entry_width(config));
        let layers = (0..config.num_layers)
            .map(|_| zeroed_cache(shape, dtype.tensor_dtype()))
            .collect::<Result<_, _>>()?;
        let bytes_per_block = Self::bytes_per_token(config, dtype) * block_size;
        Ok(Self { layers, block_count, block_size, bytes_per_block })
    }

    /// Has the system provide all of the memory, in a thread of its own, so that no step waits for it and a lack of it shows soon.
    pub fn provide_memory(&self) {
        let layers = self.layers.clone();
        // Without a thread it is provided as it is used.
        let _ = thread::Builder::new().name("cache-memory".into()).spawn(move || provide_caches(&layers));
    }

    /// Bytes that one token takes in all layers together.
    pub fn bytes_per_token(config: &ModelConfig, dtype: CacheDtype) -> usize {
        config.num_layers * dtype.entry_width(config) * dtype.tensor_dtype().size_in_bytes()
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        self.block_count
    }

    /// Tokens a block holds.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Bytes of a block in all layers together: the length of what [`read_block`](Self::read_block) gives.
    pub fn bytes_per_block(&self) -> usize {
        self.bytes_per_block
    }

    /// A copy of a block, layer after layer, to be kept elsewhere.
    ///
    /// # Errors
    /// When there is no such block.
    pub fn read_block(&self, block: u32) -> Result<Vec<u8>, ModelError> {
        let mut bytes = Vec::with_capacity(self.bytes_per_block);
        for layer in &self.layers {
            read_block(layer, block as usize, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// Fills a block with a copy made by [`read_block`](Self::read_block), of this pool or one of the same kind.
    ///
    /// # Errors
    /// When there is no such block or `bytes` has another length; nothing was written then.
    pub fn write_block(&mut self, block: u32, bytes: &[u8]) -> Result<(), ModelError> {
        if bytes.len() != self.bytes_per_block {
            let (found, expected) = (bytes.len(), self.bytes_per_block);
            return Err(ModelError::Batch(format!("a block of {found} bytes instead of {expected}")));
        }
        let layer_bytes = self.bytes_per_block / self.layers.len();
        for (layer, bytes) in self.layers.iter().zip(bytes.chunks_exact(layer_bytes)) {
            write_block(layer, block as usize, bytes)?;
        }
        Ok(())
    }

    /// Layer `layer`'s tensor. Takes `&mut self` because ops write to it through candle's shared tensors.
    pub(crate) fn layer(&mut self, layer: usize) -> &Tensor {
        &self.layers[layer]
    }
}
