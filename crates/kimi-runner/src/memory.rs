//! Where the memory goes, decided and told before the first request.

use std::fmt;

use kimi_k2::{CacheDtype, ModelConfig};
use kimi_scheduler::{MAX_SCORES, TierContents};

use crate::DiskTierConfig;

/// Positions whose keys and values `mla_prefill` expands at a time.
const PREFILL_TILE: usize = 256;

/// Bytes that one step takes at most beside weights and cache: what lives at the same time in attention, in the experts or
/// in the logits, each counted in f32 and all of them together, which is more than what is ever there at once.
pub(crate) fn step_bytes(config: &ModelConfig, rows: usize, sequences: usize) -> u64 {
    let heads = config.num_attention_heads;
    let kv = heads * (config.qk_nope_head_dim + config.v_head_dim);
    let attention = rows * (4 * config.hidden_size + heads * (config.qk_head_dim() + 2 * config.v_head_dim))
        + PREFILL_TILE * (kv + config.cache_width());
    let widest = config.intermediate_size.max(config.moe_intermediate_size * config.num_experts_per_tok);
    let experts = rows * (3 * widest + 2 * config.hidden_size);
    // Also those of prompts.
    let logits = (sequences + MAX_SCORES).min(rows) * config.vocab_size;
    // Memory is kept for the next step, in sizes that are powers of two: what a smaller step had may lie beside a larger one's.
    2 * 4 * (attention + experts + logits) as u64
}

/// Patches of the largest image: 16,384, and what padding both sides to whole squares of 2 × 2 adds at the worst aspect.
const MAX_PATCHES: usize = 512 * 34;
/// Images of the largest size whose features are kept.
const KEPT_IMAGES: usize = 4;

/// Bytes that looking at images takes; nothing without a vision tower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VisionBytes {
    /// What exists at once while the largest image is looked at, at most.
    pub activations: u64,
    /// What is kept of images that were looked at.
    pub features: u64,
}

impl VisionBytes {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        let Some(vision) = &config.vision else { return Self::default() };
        let floats = |count: usize| (count * size_of::<f32>()) as u64;
        Self {
            activations: floats(vision.activations(MAX_PATCHES)),
            features: floats(KEPT_IMAGES * MAX_PATCHES / 4 * vision.text_hidden_size),
        }
    }

    /// Both together.
    pub fn total(self) -> u64 {
        self.activations + self.features
    }
}

/// The memory of a rank.
#[derive(Clone, Debug)]
pub struct MemoryTable {
    /// Ranks that share the model. What follows is of each, but for the weights, which all have together.
    pub ranks: usize,
    /// Bytes of the weights, which are mapped files: the system may drop and read them again.
    pub weights: u64,
    /// Bytes of weights that were made of them; 0 if none were.
    pub int8: u64,
    /// Bytes a step may take.
    pub step: u64,
    /// Bytes for images.
    pub vision: VisionBytes,
    /// Bytes that were free when the cache was sized.
    pub available: u64,
    /// Blocks of the cache.
    pub block_count: usize,
    /// Tokens of a block.
    pub block_size: usize,
    /// Bytes of a block.
    pub bytes_per_block: u64,
    /// Number format of the cache.
    pub cache_dtype: CacheDtype,
    /// Tokens of the longest sequence that was asked for.
    pub max_context: usize,
    /// The second tier and what it holds.
    pub disk: Option<(DiskTierConfig, TierContents)>,
}

impl fmt::Display for MemoryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row =
            |name: &str, size: u64, what: &str| writeln!(f, "  {name:<9} {:>10}  {what}", bytes(size));
        let tokens = self.block_count * self.block_size;
        let context = self.max_context.min(tokens);
        let ranks = self.ranks;
        let shared =
            if ranks > 1 { format!(", shared by {ranks} ranks; each has besides:") } else { String::new() };
        row("weights", self.weights, &format!("mapped files{shared}"))?;
        if self.int8 > 0 {
            row("int8", self.int8, "weights that every token uses, in memory")?;
        }
        row("step", self.step, "at most, for activations and logits")?;
        if self.vision.total() > 0 {
            let kept = format!(
                "at most, for images; {} of them for those looked at lately",
                bytes(self.vision.features)
            );
            row("vision", self.vision.total(), &kept)?;
        }
        row(
            "cache",
            self.block_count as u64 * self.bytes_per_block,
            &format!(
                "{tokens} tokens in {} blocks, {} bytes a token ({})",
                self.block_count,
                self.bytes_per_block / self.block_size as u64,
                self.cache_dtype.name()
            ),
        )?;
        row("free", self.available, "before step, images and cache")?;
        if let Some((config, contents)) = &self.disk {
            let (directory, stored) = (config.directory.display(), contents.stored.len());
            row(
                "disk",
                config.max_bytes,
                &format!("{directory}: {} blocks, {stored} there", contents.capacity),
            )?;
        }
        write!(f, "  context   {context:>10}  tokens of one conversation")?;
        if context < self.max_context {
            write!(f, "; {} were asked for and do not fit", self.max_context)?;
        }
        write!(f, "; {} of them fit at once", tokens / context.max(1))
    }
}

/// `1.5 GiB`.
fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..UNITS.len()).rev().find(|unit| number >> (10 * unit) > 0).unwrap_or(0);
    format!("{:.1} {}", number as f64 / (1_u64 << (10 * unit)) as f64, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_fits() {
        let table = MemoryTable {
            ranks: 2,
            weights: 595 << 30,
            int8: 11 << 30,
            step: 300 << 20,
            vision: VisionBytes { activations: 500 << 20, features: 250 << 20 },
            available: 64 << 30,
            block_count: 1000,
            block_size: 16,
            bytes_per_block: 61 * 656 * 16,
            cache_dtype: CacheDtype::Fp8,
            max_context: 262_144,
            disk: Some((
                DiskTierConfig { directory: "/var/cache/kimi".into(), max_bytes: 10 << 30 },
                TierContents { capacity: 16_000, stored: vec![] },
            )),
        };
        let expected = "  weights    595.0 GiB  mapped files, shared by 2 ranks; each has besides:
  int8        11.0 GiB  weights that every token uses, in memory
  step       300.0 MiB  at most, for activations and logits
  vision     750.0 MiB  at most, for images; 250.0 MiB of them for those looked at lately
  cache      610.6 MiB  16000 tokens in 1000 blocks, 40016 bytes a token (fp8)
  free        64.0 GiB  before step, images and cache
  disk        10.0 GiB  /var/cache/kimi: 16000 blocks, 0 there
  context        16000  tokens of one conversation; 262144 were asked for and do not fit; 1 of them fit at once";
        assert_eq!(table.to_string(), expected);
    }
}
