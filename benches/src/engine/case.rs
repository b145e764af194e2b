//! What is measured: steps of a prompt or of a generation.

use std::{hint::black_box, time::Instant};

use anyhow::Result;
use kimi_k2::{Batch, CacheDtype, KimiModel, KvPool, SequenceSpan};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::process;

const BLOCK_SIZE: usize = 16;
/// Steps after which memory is not expected to grow any more.
const SETTLED: usize = 100;

/// Steps that compute `rows` tokens for each of `sequences`, behind `depth` tokens.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Case {
    pub(super) sequences: usize,
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) steps: usize,
}

/// What a case took once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Of a step.
    pub(super) seconds: f64,
    /// The most that was resident at any time, mapped files included; `None` where the system does not tell.
    pub(super) peak_bytes: Option<u64>,
    /// What the last step had more than the hundredth, mapped files not counted; `None` without so many steps.
    pub(super) grown_bytes: Option<i64>,
}

impl Case {
    pub(super) fn name(self) -> String {
        let what = match self.rows {
            1 => format!("generate × {}", self.sequences),
            rows => format!("prompt {rows}"),
        };
        if self.depth == 0 { what } else { format!("{what} @ {}", self.depth) }
    }

    /// Tokens of a step.
    pub(super) fn tokens(self) -> usize {
        self.sequences * self.rows
    }

    /// Tokens that a sequence has in the end.
    fn context(self) -> usize {
        self.depth + self.rows * self.steps
    }

    fn blocks_of_a_sequence(self) -> usize {
        self.context().div_ceil(BLOCK_SIZE)
    }

    /// Tokens of the cache that a step reads, on average over the steps.
    pub(super) fn cached_tokens(self) -> f64 {
        self.sequences as f64 * (self.depth as f64 + self.rows as f64 * (self.steps - 1) as f64 / 2.0)
    }

    /// Tokens that there is room for in the cache.
    pub(super) fn cache_room(self) -> usize {
        self.sequences * self.blocks_of_a_sequence() * BLOCK_SIZE
    }

    /// The cache behind the rows is zeros, written, so that each page of it exists.
    pub(super) fn run(self, model: &KimiModel, dtype: CacheDtype) -> Result<Run> {
        process::forget_peak();
        let mut kv = KvPool::new(model.config(), self.cache_room() / BLOCK_SIZE, BLOCK_SIZE, dtype)?;
        let zeros = vec![0; kv.bytes_per_block()];
        (0..kv.block_count() as u32).try_for_each(|block| kv.write_block(block, &zeros))?;
        let mut dice = ChaCha8Rng::seed_from_u64(0);
        let mut step = |number: usize| -> Result<()> {
            let batch = self.batch(number, model.config().vocab_size, &mut dice);
            black_box(model.forward(&batch, &mut kv)?);
            Ok(())
        };
        step(0)?;
        let mut settled = None;
        let start = Instant::now();
        for number in 0..self.steps {
            if number == SETTLED {
                settled = process::anonymous_bytes();
            }
            step(number)?;
        }
        let seconds = start.elapsed().as_secs_f64() / self.steps as f64;
        let grown_bytes = settled.zip(process::anonymous_bytes()).map(|(then, now)| now as i64 - then as i64);
        Ok(Run { seconds, peak_bytes: process::peak_bytes(), grown_bytes })
    }

    fn batch(self, number: usize, vocabulary: usize, dice: &mut ChaCha8Rng) -> Batch {
        let blocks = self.blocks_of_a_sequence();
        let spans = (0..self.sequences).map(|sequence| SequenceSpan {
            rows: sequence * self.rows..(sequence + 1) * self.rows,
            start: self.depth + number * self.rows,
            block_table: (sequence * blocks..(sequence + 1) * blocks).map(|block| block as u32).collect(),
        });
        Batch {
            token_ids: (0..self.tokens()).map(|_| dice.random_range(0..vocabulary as u32)).collect(),
            spans: spans.collect(),
            sample_rows: (1..=self.sequences).map(|sequence| (sequence * self.rows - 1) as u32).collect(),
            features: vec![],
        }
    }
}
