#![doc = include_str!("../README.md")]

mod attention_product;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg_attr(not(target_arch = "x86_64"), path = "avx512/absent.rs")]
mod avx512;
mod bf16_attention;
mod bf16_rows;
mod bias;
mod cache_blocks;
mod cached_entries;
mod code_kernels;
mod codes;
mod cpu;
mod embedding;
mod full_attention;
mod gated_mlp;
mod int8_weight;
mod kept;
mod kept_tensor;
mod key_rows;
mod latent_cache;
mod latent_fp8;
mod layer_norm;
mod linear;
mod matmul;
mod mla;
mod mla_decode;
mod mla_prefill;
mod moe;
#[cfg(target_arch = "aarch64")]
mod neon;
mod output;
mod pages;
mod peak;
mod product;
mod quantized_rows;
mod rms_norm;
mod rope;
mod rope_grid;
mod rounded_rows;
mod router;
mod softmax;
mod stored;
mod threads;
mod tiles;
mod vectorized;
mod vectors;
mod weight;
mod weight_part;
mod weight_rows;
mod wide;
mod widened_attention;

pub use bias::{Activation, add_bias};
pub use cache_blocks::{provide_caches, read_block, write_block, zeroed_cache};
pub use cpu::add_assign;
pub use embedding::embed;
pub use full_attention::full_attention;
pub use gated_mlp::{GatedMlp, gated_mlps};
pub use kept_tensor::KeptTensor;
pub use latent_cache::{PagedSpan, fp8_entry_bytes, write_latents};
pub use layer_norm::{LayerNormWeights, layer_norm};
pub use linear::{Activations, dequantize, linear, linears};
pub use mla::{MlaLayer, MlaShape};
pub use mla_decode::mla_decode;
pub use mla_prefill::mla_prefill;
pub use moe::{ExpertPlan, gather_rows};
pub use pages::lock_pages;
pub use peak::{Multiplication, peak};
pub use product::FEW_ROWS;
pub use rms_norm::rms_norm;
pub use rope::{RopeTable, Rotations, rope_interleaved};
pub use rope_grid::rope_grid;
pub use router::{RouterConfig, choose_experts, expert_weights};
pub use threads::{OwnThreads, for_each_item, thread_count, use_threads};
pub use vectors::{Vectors, use_vectors};
pub use weight::{DenseDtype, SharedBytes, Weight, WeightData};

/// Whether this CPU has kernels that multiply bytes: for activations of 8 bits and [`WeightData::Int8Group32`].
pub fn multiplies_bytes() -> bool {
    code_kernels::CodeKernels::detect().is_some()
}

/// Whether each row gets the numbers that it gets alone, to the last bit, in batches of any size, not only of [`FEW_ROWS`].
pub fn rows_are_independent() -> bool {
    avx512::Avx512::detect().is_some()
}

/// Whether this CPU has kernels that multiply bf16 with bf16.
pub fn multiplies_bf16() -> bool {
    avx512::Avx512::detect().is_some_and(avx512::Avx512::has_bf16)
}

/// Every op once more, written with candle's own ops: slow, readable, and what the tests compare with.
pub mod reference {
    pub use crate::{
        bias::add_bias_reference as add_bias,
        cpu::add_assign_reference as add_assign,
        embedding::embed_reference as embed,
        full_attention::full_attention_reference as full_attention,
        gated_mlp::gated_mlps_reference as gated_mlps,
        latent_cache::{read_latents_reference as read_latents, write_latents_reference as write_latents},
        layer_norm::layer_norm_reference as layer_norm,
        linear::{
            linear_reference as linear, round_to_bf16_reference as round_to_bf16,
            round_to_int8_reference as round_to_int8,
        },
        mla::mla_reference as mla,
        moe::gather_rows_reference as gather_rows,
        rms_norm::rms_norm_reference as rms_norm,
        rope::rope_reference as rope_interleaved,
        rope_grid::rope_grid_reference as rope_grid,
        router::{choose_experts_reference as choose_experts, expert_weights_reference as expert_weights},
    };
}
