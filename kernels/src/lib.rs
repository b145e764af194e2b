#![doc = include_str!("../README.md")]

mod cache_blocks;
mod cpu;
mod embedding;
mod latent_cache;
mod latent_fp8;
mod linear;
mod matmul;
mod mla;
mod mla_decode;
mod mla_prefill;
mod moe;
mod rms_norm;
mod rope;
mod router;
mod silu_mul;
mod softmax;
mod vectorized;
mod weight;
mod weight_rows;

pub use cache_blocks::{read_block, write_block};
pub use cpu::add_assign;
pub use embedding::embed;
pub use latent_cache::{PagedSpan, fp8_entry_bytes, write_latents};
pub use linear::{FEW_ROWS, dequantize, linear};
pub use mla::MlaShape;
pub use mla_decode::mla_decode;
pub use mla_prefill::mla_prefill;
pub use moe::{ExpertPlan, gather_rows, scatter_add_rows};
pub use rms_norm::rms_norm;
pub use rope::{RopeTable, rope_interleaved};
pub use router::{RouterConfig, choose_experts, expert_weights};
pub use silu_mul::silu_mul;
pub use weight::{DenseDtype, SharedBytes, Weight, WeightData};

/// Every op once more, written with candle's own ops: slow, readable, and what the tests compare with.
pub mod reference {
    pub use crate::{
        cpu::add_assign_reference as add_assign,
        embedding::embed_reference as embed,
        latent_cache::{read_latents_reference as read_latents, write_latents_reference as write_latents},
        linear::linear_reference as linear,
        mla::mla_reference as mla,
        moe::{gather_rows_reference as gather_rows, scatter_add_rows_reference as scatter_add_rows},
        rms_norm::rms_norm_reference as rms_norm,
        rope::rope_reference as rope_interleaved,
        router::{choose_experts_reference as choose_experts, expert_weights_reference as expert_weights},
        silu_mul::silu_mul_reference as silu_mul,
    };
}
