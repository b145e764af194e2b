//! Rotary frequencies and the softmax scale, with YaRN's stretching of the context.
//!
//! YaRN (arXiv 2309.00071): fast pairs keep their frequency, slow ones are slowed down by `factor`, those between are
//! mixed; attention scores are sharpened by a factor that grows with the logarithm of `factor`.

use std::f64::consts::PI;

use kimi_kernels::RopeTable;

use crate::{ModelConfig, YarnScaling};

/// How positions rotate queries and keys. Applies at every position, also in short prompts.
///
/// Each step is rounded to f32 as the reference implementation rounds it: a frequency's last bit, times a position of
/// some thousands, would show in the logits.
pub(crate) fn rope_table(config: &ModelConfig) -> RopeTable {
    let dim = config.qk_rope_head_dim;
    let exponents = (0..dim / 2).map(|pair| (2 * pair) as f32 / dim as f32);
    let wavelengths = exponents.map(|exponent| config.rope_theta.powf(f64::from(exponent)) as f32);
    let Some(yarn) = config.rope_scaling else {
        return RopeTable { inv_freq: wavelengths.map(f32::recip).collect(), multiplier: 1.0 };
    };
    let (low, high) = ramp_bounds(yarn, dim, config.rope_theta);
    let inv_freq = wavelengths.enumerate().map(|(pair, wavelength)| {
        let kept = 1.0 - ((pair as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        (yarn.factor as f32 * wavelength).recip() * (1.0 - kept) + wavelength.recip() * kept
    });
    let multiplier = sharpening(yarn.factor, yarn.mscale) / sharpening(yarn.factor, yarn.mscale_all_dim);
    RopeTable { inv_freq: inv_freq.collect(), multiplier: multiplier as f32 }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// K2.6's text configuration with another size of the rotated part and other scaling.
    fn config(rope_dim: usize, scaling: &str) -> ModelConfig {
        let text = format!(
            r#"{{"model_type": "kimi_k2", "vocab_size": 163840, "hidden_size": 7168, "intermediate_size": 18432,
            "moe_intermediate_size": 2048, "num_hidden_layers": 61, "first_k_dense_replace": 1, "moe_layer_freq": 1,
            "num_attention_heads": 64, "num_key_value_heads": 64, "q_lora_rank": 1536, "kv_lora_rank": 512,
            "qk_nope_head_dim": 128, "qk_rope_head_dim": {rope_dim}, "v_head_dim": 128, "n_routed_experts": 384,
            "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 1, "topk_group": 1, "norm_topk_prob": true,
            "scoring_func": "sigmoid", "topk_method": "noaux_tc", "routed_scaling_factor": 2.827,
            "hidden_act": "silu", "rms_norm_eps": 1e-05, "max_position_embeddings": 262144,
            "rope_theta": 50000.0, "rope_scaling": {scaling}, "tie_word_embeddings": false,
            "architectures": ["DeepseekV3ForCausalLM"]}}"#
        );
        ModelConfig::parse(text.as_bytes(), None).unwrap()
    }

    const K26_YARN: &str = r#"{"type": "yarn", "factor": 64.0, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
        "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096}"#;

    fn assert_relatively_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-6, "{found} instead of {expected}");
        }
    }

    #[test]
    fn frequencies_of_k26() {
        #[rustfmt::skip]
        let expected = [
            1.0, 0.713_111_1, 0.508_527_4, 0.362_636_54, 0.258_600_14, 0.184_410_62, 0.131_505_26, 0.093_777_86,
            0.066_874_03, 0.043_776_656, 0.028_427_959, 0.018_282_956, 0.011_619_16, 7.274_119e-3, 4.465_848_7e-3,
            2.670_203_4e-3, 1.537_296_7e-3, 8.346_55e-4, 4.086_459_9e-4, 1.583_749_9e-4, 1.807_023_4e-5,
            1.288_608_4e-5, 9.189_21e-6, 6.552_927e-6, 4.672_965e-6, 3.332_343e-6, 2.376_330_8e-6, 1.694_587_8e-6,
            1.208_429_4e-6, 8.617_444e-7, 6.145_195e-7, 4.382_206_5e-7,
        ];
        let config = config(64, K26_YARN);
        let table = rope_table(&config);
        assert_relatively_close(&table.inv_freq, &expected);
        assert_relatively_close(&[table.multiplier, softmax_scale(&config)], &[1.0, 0.144_679_63]);
    }

    #[test]
    fn without_scaling_frequencies_are_a_geometric_series() {
        let config = config(8, "null");
        let table = rope_table(&config);
        assert_relatively_close(&table.inv_freq, &[1.0, 0.066_874_03, 4.472_136e-3, 2.990_698e-4]);
        assert_relatively_close(&[table.multiplier, softmax_scale(&config)], &[1.0, 136.0_f32.powf(-0.5)]);
    }

    #[test]
    fn a_ramp_without_length_is_a_step() {
        // Both bounds are clamped to the same pair.
        let yarn = YarnScaling {
            factor: 2.0,
            beta_fast: 1e9,
            beta_slow: 1e8,
            mscale: 1.0,
            mscale_all_dim: 0.0,
            original_max_position_embeddings: 4096,
        };
        assert_eq!(ramp_bounds(yarn, 64, 50_000.0), (0.0, 0.001));
        let config = ModelConfig { rope_scaling: Some(yarn), ..config(4, "null") };
        let table = rope_table(&config);
        assert_relatively_close(&table.inv_freq, &[1.0, 0.5 * 50_000.0_f32.powf(-0.5)]);
        // Without mscale_all_dim the sharpening moves from the scores to cosine and sine.
        assert_relatively_close(&[table.multiplier], &[0.1 * 2.0_f32.ln() + 1.0]);
        assert_relatively_close(&[softmax_scale(&config)], &[132.0_f32.powf(-0.5)]);
    }
}
