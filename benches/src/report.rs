//! Numbers from outcomes: a table to read and JSON to keep.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

use crate::{closed_loop::Outcome, workload::Workload};

/// All measurements of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    base_url: String,
    model: String,
    seed: u64,
    prompt_words: usize,
    max_tokens: usize,
    temperature: f32,
    levels: Vec<LevelReport>,
}

/// One measurement.
#[derive(Debug, Serialize)]
struct LevelReport {
    concurrency: usize,
    answers: usize,
    errors: usize,
    unfinished: usize,
    seconds: f64,
    prompt_tokens: u64,
    completion_tokens: u64,
    output_tokens_per_second: f64,
    /// Of answers alone; `None` without any.
    time_to_first_token_ms: Option<Percentiles>,
    /// Between pieces of the same answer; `None` when no answer has two.
    inter_token_ms: Option<Percentiles>,
    /// Different errors, first come first, a few at most.
    first_errors: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Percentiles {
    p50: f64,
    p95: f64,
}

impl Report {
    pub(crate) fn new(base_url: &str, workload: &Workload) -> Self {
        Self {
            base_url: base_url.to_owned(),
            model: workload.model.clone(),
            seed: workload.seed,
            prompt_words: workload.prompt_words,
            max_tokens: workload.max_tokens,
            temperature: workload.temperature,
            levels: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, concurrency: usize, outcome: &Outcome) {
        const ERRORS_SHOWN: usize = 3;
        let answers = &outcome.answers;
        let completion_tokens = answers.iter().map(|answer| answer.completion_tokens).sum();
        let mut first_errors: Vec<String> = Vec::new();
        for error in &outcome.errors {
            if first_errors.len() < ERRORS_SHOWN && !first_errors.contains(error) {
                first_errors.push(error.clone());
            }
        }
        self.levels.push(LevelReport {
            concurrency,
            answers: answers.len(),
            errors: outcome.errors.len(),
            unfinished: outcome.unfinished,
            seconds: outcome.elapsed.as_secs_f64(),
            prompt_tokens: answers.iter().map(|answer| answer.prompt_tokens).sum(),
            completion_tokens,
            output_tokens_per_second: completion_tokens as f64 / outcome.elapsed.as_secs_f64().max(1e-9),
            time_to_first_token_ms: percentiles(answers.iter().map(|answer| answer.first_token)),
            inter_token_ms: percentiles(answers.iter().flat_map(|answer| answer.gaps.iter().copied())),
            first_errors,
        });
    }

    /// Whether any request failed or did not finish.
    pub(crate) fn has_errors(&self) -> bool {
        self.levels.iter().any(|level| level.errors + level.unfinished > 0)
    }

    /// A Markdown table, and the errors below it.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{} at {}: prompts of {} words, at most {} tokens, seed {}\n\n\
             | clients | answers | errors | unfinished | output tok/s | TTFT p50 ms | TTFT p95 ms | ITL p50 ms | ITL p95 ms |\n\
             |---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
            self.model, self.base_url, self.prompt_words, self.max_tokens, self.seed
        );
        for level in &self.levels {
            let shown = |percentiles: Option<Percentiles>| {
                percentiles.map_or("– | –".to_owned(), |p| format!("{:.1} | {:.1}", p.p50, p.p95))
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {:.1} | {} | {} |",
                level.concurrency,
                level.answers,
                level.errors,
                level.unfinished,
                level.output_tokens_per_second,
                shown(level.time_to_first_token_ms),
                shown(level.inter_token_ms),
            );
        }
        for level in &self.levels {
            for error in &level.first_errors {
                let _ = write!(text, "\n{} clients: {error}", level.concurrency);
            }
        }
        text
    }
}

/// By nearest rank, in milliseconds.
fn percentiles(durations: impl Iterator<Item = Duration>) -> Option<Percentiles> {
    let mut sorted: Vec<Duration> = durations.collect();
    sorted.sort_unstable();
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).map(|duration| duration.as_secs_f64() * 1e3)
    };
    Some(Percentiles { p50: at(50)?, p95: at(95)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let of = |count: u64| percentiles((1..=count).rev().map(Duration::from_millis));
        assert_eq!(of(0), None);
        assert_eq!(of(1), Some(Percentiles { p50: 1.0, p95: 1.0 }));
        assert_eq!(of(100), Some(Percentiles { p50: 50.0, p95: 95.0 }));
        assert_eq!(of(10), Some(Percentiles { p50: 5.0, p95: 10.0 }));
    }
}
