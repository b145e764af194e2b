//! The model without a server: how fast prompts are read and answers written, and how close that is to what memory gives.

mod case;
mod figures;
mod limit;
mod neighbours;
mod process;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use kimi_k2::{
    Activations, CacheDtype, Checkpoint, CheckpointFiles, KimiModel, KvPool, ModelOptions, inspect,
    use_threads,
};
use kimi_kernels::{Multiplication, peak, use_vectors};

use self::{
    case::Case,
    figures::{Figures, Round},
    limit::{Machine, Needs},
};
use crate::{memory::Memory, options::Widest, report};

/// Options of `kimi-bench engine`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Engine {
    /// Directory of a checkpoint
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Tokens of the prompts; 0: none
    #[arg(long, value_delimiter = ',', default_value = "512")]
    prompt: Vec<usize>,
    /// Sequences that generate together; 0: none
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
    /// The widest vectors to use: what other CPUs would compute
    #[arg(long, value_enum)]
    vectors: Option<Widest>,
    /// Measure each round again while other threads keep so many cores busy
    #[arg(long, value_name = "CORES", default_value_t = 0)]
    busy: usize,
    /// Keep the figures
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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

impl Engine {
    /// Measures and returns a table.
    pub(crate) fn run(&self) -> Result<String> {
        ensure!(self.repeat > 0 && self.steps > 0, "--repeat and --steps begin with 1");
        let cases = self.cases();
        ensure!(!cases.is_empty(), "nothing to measure: give a --prompt or a --batch");
        self.threads.map(use_threads);
        self.vectors.map(|widest| use_vectors(widest.into()));
        let checkpoint = Checkpoint::open(CheckpointFiles::Directory(self.model.clone()))?;
        let model = self.load(&checkpoint)?;
        let mut rounds = vec![Vec::new(); cases.len()];
        for _ in 0..self.repeat {
            for (case, rounds) in cases.iter().zip(&mut rounds) {
                rounds.push(self.measure(&model, *case).with_context(|| case.name())?);
            }
        }
        let cache = KvPool::bytes_per_token(model.config(), self.kv_dtype.into());
        let inspection = inspect(&checkpoint);
        let needs = Needs::new(&inspection, self.dense_int8, cache);
        let figures = cases.iter().zip(&rounds).map(|(case, rounds)| {
            let kept = inspection.weight_bytes + (case.cache_room() * cache) as u64;
            Figures::new(*case, rounds, &needs, kept)
        });
        let figures: Vec<_> = figures.collect();
        if let Some(path) = &self.json {
            report::write(path, &serde_json::to_string_pretty(&figures)?)?;
        }
        Ok(figures::text(&self.model.display().to_string(), &figures))
    }

    fn load(&self, checkpoint: &Checkpoint) -> Result<KimiModel> {
        let activations = if self.exact { Activations::F32 } else { Activations::Rounded };
        let options = ModelOptions { activations, ..ModelOptions::default() };
        let mut model = KimiModel::load(checkpoint, &mut |_, _| {})?.with_options(options);
        if self.dense_int8 {
            model.dense_to_int8(&mut |_, _| {})?;
        }
        Ok(model)
    }

    /// Depth by depth, prompts before generations.
    fn cases(&self) -> Vec<Case> {
        let wanted =
            |numbers: &[usize]| numbers.iter().copied().filter(|&number| number > 0).collect::<Vec<_>>();
        let (prompts, batches) = (wanted(&self.prompt), wanted(&self.batch));
        let at = |&depth: &usize| {
            let prompts = prompts.iter().map(move |&rows| Case { sequences: 1, rows, depth, steps: 1 });
            let steps = self.steps;
            prompts.chain(batches.iter().map(move |&sequences| Case { sequences, rows: 1, depth, steps }))
        };
        self.depth.iter().flat_map(at).collect()
    }

    fn measure(&self, model: &KimiModel, case: Case) -> Result<Round> {
        // What is read to measure the memory is given back before the model's own is counted.
        let bandwidth = Memory::new()?.bandwidth() * 1e9;
        let operations = peak(if self.exact { Multiplication::F32 } else { Multiplication::Int8 });
        let run = || case.run(model, self.kv_dtype.into());
        let quiet = run()?;
        let beside = (self.busy > 0).then(|| neighbours::beside(self.busy, run)).transpose()?;
        Ok(Round {
            run: quiet,
            machine: Machine { bandwidth, operations },
            beside_seconds: beside.map(|run| run.seconds),
        })
    }
}
