//! The model without a server: how fast prompts are read and answers written, and how close that is to what memory gives.

use std::{hint::black_box, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use kimi_k2::{
    Activations, Batch, CacheDtype, Checkpoint, CheckpointFiles, Inspection, KimiModel, KvPool, ModelOptions,
    Part, SequenceSpan, inspect, use_threads,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    memory::Memory,
    table::{Cell, table},
};

const BLOCK_SIZE: usize = 16;
/// Bytes of a weight in 8 bits, with its scales, over those in bf16.
const INT8: f64 = 17.0 / 32.0;

/// Options of `kimi-bench engine`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Engine {
    /// Directory of a checkpoint
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Tokens of the prompts
    #[arg(long, value_delimiter = ',', default_value = "512")]
    prompt: Vec<usize>,
    /// Sequences that generate together
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    batch: Vec<usize>,
    /// Tokens that are in the cache before: of prompts and of generation
    #[arg(long, value_delimiter = ',', default_value = "0")]
    depth: Vec<usize>,
    /// Steps of a generation
    #[arg(long, default_value_t = 32)]
    steps: usize,
    /// Rounds; each measures everything once, and the medians are shown
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Number format of the cache
    #[arg(long, value_enum, default_value_t = Cache::Bf16)]
    kv_dtype: Cache,
    /// Multiply 4-bit weights with activations as they are
    #[arg(long, conflicts_with = "dense_int8")]
    exact: bool,
    /// Keep the weights that every token uses in 8 bits
    #[arg(long)]
    dense_int8: bool,
    /// Threads; as many as there are cores without it
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cache {
    F32,
    Bf16,
    Fp8,
}

impl From<Cache> for CacheDtype {
    fn from(cache: Cache) -> Self {
        match cache {
            Cache::F32 => Self::F32,
            Cache::Bf16 => Self::Bf16,
            Cache::Fp8 => Self::Fp8,
        }
    }
}

/// Something to measure: steps that compute `rows` tokens for each of `sequences`, behind `depth` tokens.
#[derive(Clone, Copy, Debug)]
struct Case {
    sequences: usize,
    rows: usize,
    depth: usize,
    steps: usize,
}

impl Case {
    fn name(self) -> String {
        let what = match self.rows {
            1 => format!("generate × {}", self.sequences),
            rows => format!("prompt {rows}"),
        };
        if self.depth == 0 { what } else { format!("{what} @ {}", self.depth) }
    }

    fn context(self) -> usize {
        self.depth + self.rows * self.steps
    }
}

impl Engine {
    /// Measures and returns a table.
    pub(crate) fn run(&self) -> Result<String> {
        ensure!(self.repeat > 0 && self.steps > 0, "--repeat and --steps begin with 1");
        self.threads.map(use_threads);
        let checkpoint = Checkpoint::open(CheckpointFiles::Directory(self.model.clone()))?;
        let activations = if self.exact { Activations::F32 } else { Activations::Rounded };
        let options = ModelOptions { activations, ..ModelOptions::default() };
        let mut model = KimiModel::load(&checkpoint, &mut |_, _| {})?.with_options(options);
        if self.dense_int8 {
            model.dense_to_int8(&mut |_, _| {})?;
        }
        let cases = self.cases();
        let mut memory = Vec::new();
        let mut seconds = vec![Vec::new(); cases.len()];
        let mut dice = ChaCha8Rng::seed_from_u64(0);
        let all_memory = Memory::new();
        for _ in 0..self.repeat {
            for (case, seconds) in cases.iter().zip(&mut seconds) {
                memory.push(all_memory.bandwidth());
                seconds.push(self.measure(&model, *case, &mut dice).with_context(|| case.name())?);
            }
        }
        let memory = median(&mut memory);
        let weights = Weights::new(&inspect(&checkpoint), if self.dense_int8 { INT8 } else { 1.0 });
        let rows: Vec<_> = cases
            .iter()
            .zip(&mut seconds)
            .map(|(case, seconds)| row(*case, seconds, &weights, memory))
            .collect();
        let titles = ["", "tokens/s", "slowest", "fastest", "ms a step", "weights GB/s", "of the memory's"];
        let title = format!("{}, memory reads {memory:.1} GB/s", self.model.display());
        Ok(format!("{title}\n\n{}\n", table(&titles.map(str::to_owned), &rows)))
    }

    fn cases(&self) -> Vec<Case> {
        let prompts = self.prompt.iter().map(|&rows| (1, rows, 1));
        let generations = self.batch.iter().map(|&sequences| (sequences, 1, self.steps));
        let kinds: Vec<_> = prompts.chain(generations).collect();
        let at = |depth: &usize| {
            let depth = *depth;
            let case = move |(sequences, rows, steps): &(usize, usize, usize)| Case {
                sequences: *sequences,
                rows: *rows,
                depth,
                steps: *steps,
            };
            kinds.iter().map(case).collect::<Vec<_>>()
        };
        self.depth.iter().flat_map(at).collect()
    }

    /// Seconds of a step. The cache behind the rows is zeros, written, so that each page of it exists.
    fn measure(&self, model: &KimiModel, case: Case, dice: &mut ChaCha8Rng) -> Result<f64> {
        let blocks = case.context().div_ceil(BLOCK_SIZE);
        let config = model.config();
        let mut kv = KvPool::new(config, blocks * case.sequences, BLOCK_SIZE, self.kv_dtype.into())?;
        let zeros = vec![0; kv.bytes_per_block()];
        (0..kv.block_count() as u32).try_for_each(|block| kv.write_block(block, &zeros))?;
        let mut step = |number: usize| -> Result<()> {
            let spans = (0..case.sequences).map(|sequence| SequenceSpan {
                rows: sequence * case.rows..(sequence + 1) * case.rows,
                start: case.depth + number * case.rows,
                block_table: (sequence * blocks..(sequence + 1) * blocks).map(|block| block as u32).collect(),
            });
            let tokens = case.sequences * case.rows;
            let batch = Batch {
                token_ids: (0..tokens).map(|_| dice.random_range(0..config.vocab_size as u32)).collect(),
                spans: spans.collect(),
                sample_rows: (1..=case.sequences).map(|sequence| (sequence * case.rows - 1) as u32).collect(),
                features: vec![],
            };
            black_box(model.forward(&batch, &mut kv)?);
            Ok(())
        };
        step(0)?;
        let start = Instant::now();
        (0..case.steps).try_for_each(&mut step)?;
        Ok(start.elapsed().as_secs_f64() / case.steps as f64)
    }
}

/// Bytes of weights.
struct Weights {
    /// That every step reads.
    always: f64,
    /// Of all routed experts.
    experts: f64,
    /// The share of them that one token uses.
    share: f64,
}

impl Weights {
    /// `dense` is what became of a byte of those that every token uses.
    fn new(inspection: &Inspection, dense: f64) -> Self {
        let bytes = |wanted: fn(Part) -> bool| {
            let parts = inspection.parts.iter().filter(|size| wanted(size.part));
            parts.map(|size| size.bytes as f64).sum::<f64>()
        };
        Self {
            always: dense
                * bytes(|part| {
                    use Part::{Attention, DenseMlp, Head, Norms, Router, SharedExperts};
                    matches!(part, Attention | DenseMlp | SharedExperts | Router | Norms | Head)
                }),
            experts: bytes(|part| part == Part::RoutedExperts),
            share: inspection.experts_per_token as f64 / (inspection.routed_experts as f64).max(1.0),
        }
    }

    /// That a step of so many tokens reads, if experts are chosen evenly.
    fn of(&self, tokens: usize) -> f64 {
        self.always + self.experts * (1.0 - (1.0 - self.share).powi(tokens as i32))
    }
}

fn row(case: Case, seconds: &mut [f64], weights: &Weights, memory: f64) -> Vec<String> {
    let tokens = (case.sequences * case.rows) as f64;
    let step = median(seconds);
    let rate = weights.of(case.sequences * case.rows) / step / 1e9;
    let cell = |number: f64| Cell(number).to_string();
    vec![
        case.name(),
        cell(tokens / step),
        cell(tokens / seconds[seconds.len() - 1]),
        cell(tokens / seconds[0]),
        cell(step * 1e3),
        cell(rate),
        format!("{:.0} %", rate / memory * 100.0),
    ]
}

/// Sorts the numbers.
fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
