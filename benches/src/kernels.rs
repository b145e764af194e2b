//! The ops alone, at K2.6's sizes, against what memory and multipliers give in the same minute.

use std::{sync::Arc, time::Instant};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use clap::Args;
use kimi_kernels::{
    Activations, DenseDtype, MlaLayer, MlaShape, Multiplication, PagedSpan, RopeTable, RouterConfig,
    SharedBytes, Weight, WeightData, choose_experts, linear, mla_decode, mla_prefill, peak, rms_norm,
    rope_interleaved, use_threads, use_vectors, zeroed_cache,
};

use crate::{
    memory::Memory,
    options::Widest,
    table::{Cell, table},
};

/// Weights that are used in turn, so that they come from memory: more than the last-level cache holds.
const ROTATION_BYTES: usize = 256 << 20;
/// Seconds that an op is repeated for; the fastest counts.
const SECONDS: f64 = 0.4;

/// Options of `kimi-bench kernels`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Kernels {
    /// Rows that meet a weight
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,512")]
    rows: Vec<usize>,
    /// Columns of the weights
    #[arg(long, default_value_t = 7168)]
    columns: usize,
    /// Rows of the weights
    #[arg(long, default_value_t = 2048)]
    features: usize,
    /// Only ops whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Threads; as many as there are cores without it
    #[arg(long)]
    threads: Option<usize>,
    /// The widest vectors to use: what other CPUs would compute
    #[arg(long, value_enum)]
    vectors: Option<Widest>,
}

/// A stored format, the activations that meet it, and what both are multiplied with.
struct Format {
    name: &'static str,
    make: fn(usize, usize) -> Weight,
    activations: Activations,
    multiplication: Multiplication,
}

const FORMATS: [Format; 6] = {
    use Activations::{F32 as Exact, Rounded};
    use Multiplication::{Bf16, F32, Int8};
    [
        Format { name: "bf16 × f32", make: bf16, activations: Exact, multiplication: F32 },
        Format { name: "bf16 × bf16", make: bf16, activations: Rounded, multiplication: Bf16 },
        Format { name: "int8 × int8", make: int8, activations: Rounded, multiplication: Int8 },
        Format { name: "int4 × f32", make: int4, activations: Exact, multiplication: F32 },
        Format { name: "int4 × int8", make: int4, activations: Rounded, multiplication: Int8 },
        Format { name: "fp8 × f32", make: fp8, activations: Exact, multiplication: F32 },
    ]
};

impl Kernels {
    /// Measures and returns a table.
    pub(crate) fn run(&self) -> Result<String> {
        self.threads.map(use_threads);
        self.vectors.map(|widest| use_vectors(widest.into()));
        let memory = Memory::new()?;
        let mut rows = Vec::new();
        for format in FORMATS.iter().filter(|format| format.name.contains(&self.only)) {
            let weights = self.rotation(format.make);
            let limit = peak(format.multiplication);
            for count in &self.rows {
                rows.push(self.product(format, &weights, *count, (memory.bandwidth(), limit))?);
            }
        }
        for (name, mut run) in small_ops()?.into_iter().filter(|(name, _)| name.contains(&self.only)) {
            let mut row = vec![name.to_owned(), micros(best(&mut *run)?)];
            row.resize(6, String::new());
            rows.push(row);
        }
        let titles = ["", "µs", "GB/s", "of memory", "GOP/s", "of the multipliers"];
        Ok(format!("{}\n", table(&titles.map(str::to_owned), &rows)))
    }

    fn product(
        &self,
        format: &Format,
        weights: &[Weight],
        rows: usize,
        (bandwidth, limit): (f64, Option<f64>),
    ) -> Result<Vec<String>> {
        let (x, out) = (ramp(&[rows, self.columns])?, ramp(&[rows, self.features])?);
        let mut turn = 0;
        let seconds = best(&mut || {
            turn += 1;
            linear(&x, &weights[turn % weights.len()], format.activations, &out)
        })?;
        let bytes = weights[0].bytes() as f64 / seconds;
        let operations = 2.0 * (rows * self.columns * self.features) as f64 / seconds;
        let share = |rate: f64, limit: f64| format!("{:.0} %", rate / limit * 100.0);
        Ok(vec![
            format!("{} [{}, {}] on {rows}", format.name, self.features, self.columns),
            micros(seconds),
            Cell(bytes / 1e9).to_string(),
            share(bytes, bandwidth * 1e9),
            Cell(operations / 1e9).to_string(),
            limit.map_or(String::new(), |limit| share(operations, limit)),
        ])
    }

    fn rotation(&self, make: fn(usize, usize) -> Weight) -> Vec<Weight> {
        let first = make(self.features, self.columns);
        let count = ROTATION_BYTES.div_ceil(first.bytes() as usize);
        std::iter::once(first).chain((1..count).map(|_| make(self.features, self.columns))).collect()
    }
}

type Run = Box<dyn FnMut() -> candle_core::Result<()>>;

/// What is not a product with a weight.
fn small_ops() -> Result<Vec<(&'static str, Run)>> {
    const HIDDEN: usize = 7168;
    let (x, weight, out) = (ramp(&[1, HIDDEN])?, ramp(&[HIDDEN])?, ramp(&[1, HIDDEN])?);
    let q = ramp(&[1, 64, 64])?;
    let rope = RopeTable { inv_freq: (1..=32).map(|i| 1.0 / i as f32).collect(), multiplier: 1.0 };
    let rotations = rope.rotations(&[9]);
    let (logits, bias) = (ramp(&[1, 384])?, ramp(&[384])?);
    let chosen = Tensor::zeros((1, 8), DType::U32, &Device::Cpu)?;
    let router = RouterConfig { groups: 1, top_groups: 1, normalize: true, scaling: 2.827 };
    let [decode, prefill] = [Attention::new(4000, 1)?, Attention::new(0, 512)?];
    Ok(vec![
        ("rms_norm [1, 7168]", Box::new(move || rms_norm(&x, &weight, 1e-5, &out))),
        ("rope_interleaved [1, 64, 64]", Box::new(move || rope_interleaved(&q, &rotations))),
        ("choose_experts 8 of 384", Box::new(move || choose_experts(&logits, &bias, router, &chosen))),
        ("mla_decode 1 row, 64 heads, 4001 positions", Box::new(move || decode.run(true))),
        ("mla_prefill 512 rows, 64 heads", Box::new(move || prefill.run(false))),
    ])
}

/// K2.6's attention of some rows behind others.
struct Attention {
    kv_b: Weight,
    cache: Tensor,
    block_table: Vec<u32>,
    q: Tensor,
    out: Tensor,
    start: usize,
    rows: usize,
}

impl Attention {
    const SHAPE: MlaShape =
        MlaShape { heads: 64, nope: 128, rope: 64, value: 128, latent: 512, scale: 0.1447 };

    fn new(start: usize, rows: usize) -> Result<Self> {
        let MlaShape { heads, nope, rope, value, latent, .. } = Self::SHAPE;
        let blocks = (start + rows).div_ceil(16);
        let cache = zeroed_cache((blocks, 16, latent + rope), DType::BF16)?;
        let numbers = ramp(&[blocks, 16, latent + rope])?.to_dtype(DType::BF16)?;
        cache.slice_set(&numbers, 0, 0)?;
        Ok(Self {
            kv_b: bf16(heads * (nope + value), latent),
            cache,
            block_table: (0..blocks as u32).collect(),
            q: ramp(&[rows, heads, nope + rope])?,
            out: ramp(&[rows, heads * value])?,
            start,
            rows,
        })
    }

    fn run(&self, absorbed: bool) -> candle_core::Result<()> {
        let layer = MlaLayer { kv_b: &self.kv_b, shape: Self::SHAPE, activations: Activations::Rounded };
        let span = PagedSpan { block_table: &self.block_table, start: self.start, rows: self.rows };
        if absorbed {
            mla_decode(&self.q, &self.cache, layer, &[span], &self.out)
        } else {
            mla_prefill(&self.q, &self.cache, layer, span, &self.out)
        }
    }
}

/// Numbers between -0.5 and 0.5.
fn ramp(shape: &[usize]) -> candle_core::Result<Tensor> {
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
    let weight = bf16(out_features, in_features);
    // Rows that are not whole blocks stay as they are.
    weight.to_int8().ok().flatten().unwrap_or(weight)
}

fn int4(out_features: usize, in_features: usize) -> Weight {
    let packed = shared(out_features * in_features.div_ceil(8) * 4, |i| (i * 31) as u8);
    let (scales, scale_dtype) = (halves(out_features * in_features.div_ceil(32)), DenseDtype::Bf16);
    Weight { out_features, in_features, data: WeightData::Int4Group32 { packed, scales, scale_dtype } }
}

fn fp8(out_features: usize, in_features: usize) -> Weight {
    let codes = shared(out_features * in_features, |i| (i % 64) as u8);
    let scale_inv =
        shared(out_features.div_ceil(128) * in_features.div_ceil(128) * 4, |i| [0, 0, 0x80, 0x3f][i % 4]);
    Weight { out_features, in_features, data: WeightData::Fp8Block128 { codes, scale_inv } }
}

/// Seconds of the fastest of several runs.
fn best(run: &mut dyn FnMut() -> candle_core::Result<()>) -> Result<f64> {
    run()?;
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed().as_secs_f64() < SECONDS {
        let started = Instant::now();
        run()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn micros(seconds: f64) -> String {
    Cell(seconds * 1e6).to_string()
}
