//! Rotary frequencies and the softmax scale, with YaRN's stretching of the context.
//!
//! YaRN (arXiv 2309.00071): fast pairs keep their frequency, slow ones are slowed down by `factor`, those between are
//! mixed; attention scores are sharpened by a factor that grows with the logarithm of `factor`.

use std::f64::consts::PI;

use kimi_kernels::RopeTable;

use crate::{ModelConfig, YarnScaling};

/// How positions rotate queries and keys. Applies at every position, also in short prompts.
pub(crate) fn rope_table(config: &ModelConfig) -> RopeTable {
    let dim = config.qk_rope_head_dim;
    let plain = (0..dim / 2).map(|pair| config.rope_theta.powf(-2.0 * pair as f64 / dim as f64));
    let Some(yarn) = config.rope_scaling else {
        return RopeTable { inv_freq: plain.map(|frequency| frequency as f32).collect(), multiplier: 1.0 };
    };
    let (low, high) = ramp_bounds(yarn, dim, config.rope_theta);
    let stretched = plain.enumerate().map(|(pair, frequency)| {
        let slowed = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
        (frequency * (1.0 - slowed) + frequency / yarn.factor * slowed) as f32
    });
    let multiplier = sharpening(yarn.factor, yarn.mscale) / sharpening(yarn.factor, yarn.mscale_all_dim);
    RopeTable { inv_freq: stretched.collect(), multiplier: multiplier as f32 }
}

/// Factor on attention scores: `1 / sqrt(nope + rope)`, times YaRN's sharpening squared, since it belongs to queries
/// and to keys.
pub(crate) fn softmax_scale(config: &ModelConfig) -> f32 {
    let sharpening = config.rope_scaling.map_or(1.0, |yarn| sharpening(yarn.factor, yarn.mscale_all_dim));
    (sharpening * sharpening / (config.qk_head_dim() as f64).sqrt()) as f32
}

/// Pairs up to the first bound keep their frequency, pairs from the second on are slowed down fully.
fn ramp_bounds(yarn: YarnScaling, dim: usize, theta: f64) -> (f64, f64) {
    let original = yarn.original_max_position_embeddings as f64;
    // The pair that turns `turns` times within the original context.
    let pair_of = |turns: f64| dim as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let low = pair_of(yarn.beta_fast).floor().max(0.0);
    let high = pair_of(yarn.beta_slow).ceil().min(dim as f64 - 1.0);
    // Apart by a hair when equal, so that the ramp between them can be divided by.
    (low, if low >= high { low + 0.001 } else { high })
}

/// YaRN's `0.1 · mscale · ln(factor) + 1`.
fn sharpening(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}
