//! Prints how fast the ops are at K2.6's sizes: `cargo run --release -p kimi-kernels --example op_speed`.

use std::{sync::Arc, time::Instant};

use candle_core::{DType, Device, Result, Tensor};
use kimi_kernels::{
    Activations, DenseDtype, MlaLayer, MlaShape, PagedSpan, RopeTable, RouterConfig, SharedBytes, Weight,
    WeightData, choose_experts, linear, mla_decode, mla_prefill, rms_norm, rope_interleaved,
};

const HIDDEN: usize = 7168;
/// Weights that are used in turn, so that they come from memory: more than the last-level cache holds.
const ROTATION_BYTES: usize = 256 << 20;

/// `(out_features, in_features)` to a weight of some format.
type MakeWeight = fn(usize, usize) -> Weight;

fn main() -> Result<()> {
    let only = std::env::args().nth(1).unwrap_or_default();
    let only_rows = std::env::args().nth(2).unwrap_or_default();
    let exact = Activations::F32;
    let formats: [(&str, MakeWeight, Activations); 6] = [
        ("bf16", bf16, exact),
        ("bf16 × bf16", bf16, Activations::Rounded),
        ("int8", int8, exact),
        ("int4", int4, exact),
        ("int4 × int8", int4, Activations::Rounded),
        ("fp8", fp8, exact),
    ];
    for (name, make, activations) in formats {
        if !name.contains(&only) {
            continue;
        }
        let weights = rotation(make);
        for rows in [1, 16, 64, 512] {
            if !format!("{rows}").contains(&only_rows) {
                continue;
            }
            let (x, out) = (ramp(&[rows, HIDDEN])?, ramp(&[rows, 2048])?);
            let mut turn = 0;
            let seconds = best(|| {
                turn += 1;
                linear(&x, &weights[turn % weights.len()], activations, &out)
            })?;
            let (bytes, operations) = (weights[0].bytes() as f64, 2.0 * (rows * HIDDEN * 2048) as f64);
            let rates =
                format!("{:.1} GB/s {:.0} GFLOP/s", bytes / seconds / 1e9, operations / seconds / 1e9);
            print(&format!("linear {name} [2048, 7168] on {rows}"), seconds, &rates);
        }
    }
    if !only.is_empty() {
        return Ok(());
    }
    small_ops()?;
    attention()
}

fn small_ops() -> Result<()> {
    let (x, weight, out) = (ramp(&[1, HIDDEN])?, ramp(&[HIDDEN])?, ramp(&[1, HIDDEN])?);
    print("rms_norm [1, 7168]", best(|| rms_norm(&x, &weight, 1e-5, &out))?, "");
    let (q, table) = (
        ramp(&[1, 64, 64])?,
        RopeTable { inv_freq: (1..=32).map(|i| 1.0 / i as f32).collect(), multiplier: 1.0 },
    );
    print("rope_interleaved [1, 64, 64]", best(|| rope_interleaved(&q, &[9], &table))?, "");
    let (logits, bias) = (ramp(&[1, 384])?, ramp(&[384])?);
    let chosen = Tensor::zeros((1, 8), DType::U32, &Device::Cpu)?;
    let config = RouterConfig { groups: 1, top_groups: 1, normalize: true, scaling: 2.827 };
    print("choose_experts 8 of 384", best(|| choose_experts(&logits, &bias, config, &chosen))?, "");
    Ok(())
}

fn attention() -> Result<()> {
    let shape = MlaShape { heads: 64, nope: 128, rope: 64, value: 128, latent: 512, scale: 0.1447 };
    let kv_b = bf16(64 * 256, 512);
    let layer = MlaLayer { kv_b: &kv_b, shape, activations: Activations::Rounded };
    let block_table: Vec<u32> = (0..256).collect();
    let cache = ramp(&[256, 16, 576])?.to_dtype(DType::BF16)?;
    let span = |start, rows| PagedSpan { block_table: &block_table, start, rows };
    let (q, out) = (ramp(&[1, 64, 192])?, ramp(&[1, 64 * 128])?);
    let seconds = best(|| mla_decode(&q, &cache, layer, &[span(4000, 1)], &out))?;
    print("mla_decode 1 row, context 4001", seconds, "");
    let (q, out) = (ramp(&[512, 64, 192])?, ramp(&[512, 64 * 128])?);
    let seconds = best(|| mla_prefill(&q, &cache, layer, span(0, 512), &out))?;
    print("mla_prefill 512 rows, context 512", seconds, "");
    Ok(())
}

fn rotation(make: MakeWeight) -> Vec<Weight> {
    let first = make(2048, HIDDEN);
    let count = ROTATION_BYTES.div_ceil(first.bytes() as usize);
    std::iter::once(first).chain((1..count).map(|_| make(2048, HIDDEN))).collect()
}

/// Numbers between -0.5 and 0.5.
fn ramp(shape: &[usize]) -> Result<Tensor> {
    let data: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i % 97) as f32 / 97.0 - 0.5).collect();
    Tensor::from_vec(data, shape, &Device::Cpu)
}

fn shared(len: usize, byte: impl Fn(usize) -> u8) -> SharedBytes {
    SharedBytes::new(Arc::new((0..len).map(byte).collect::<Vec<u8>>()))
}

/// bf16 numbers around 0.5.
fn halves(count: usize) -> SharedBytes {
    shared(count * 2, |i| if i % 2 == 0 { i as u8 } else { 0x3f })
}

fn bf16(out_features: usize, in_features: usize) -> Weight {
    let bytes = halves(out_features * in_features);
    Weight { out_features, in_features, data: WeightData::Dense { dtype: DenseDtype::Bf16, bytes } }
}

fn int8(out_features: usize, in_features: usize) -> Weight {
    bf16(out_features, in_features).to_int8().ok().flatten().expect("whole blocks")
}

fn int4(out_features: usize, in_features: usize) -> Weight {
    let packed = shared(out_features * in_features / 2, |i| (i * 31) as u8);
    let (scales, scale_dtype) = (halves(out_features * in_features / 32), DenseDtype::Bf16);
    Weight { out_features, in_features, data: WeightData::Int4Group32 { packed, scales, scale_dtype } }
}

fn fp8(out_features: usize, in_features: usize) -> Weight {
    let codes = shared(out_features * in_features, |i| (i % 64) as u8);
    let scale_inv =
        shared(out_features.div_ceil(128) * in_features.div_ceil(128) * 4, |i| [0, 0, 0x80, 0x3f][i % 4]);
    Weight { out_features, in_features, data: WeightData::Fp8Block128 { codes, scale_inv } }
}

/// Seconds of the best of several runs.
fn best(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    run()?;
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed().as_secs_f64() < 0.4 {
        let started = Instant::now();
        run()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best)
}

#[expect(clippy::print_stdout, reason = "printing is what this program is for")]
fn print(name: &str, seconds: f64, rates: &str) {
    println!("{name:36} {:10.1} us  {rates}", seconds * 1e6);
}
