//! Figures from outcomes.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{answer::Answer, drive::Outcome};

/// Different errors that a point keeps.
const ERRORS_KEPT: usize = 3;

/// How fast an answer must be to count as good, as options.
#[derive(Clone, Copy, Debug, Default, Args, Serialize)]
pub(crate) struct Slo {
    /// An answer is good only if its first token came within so many milliseconds
    #[arg(long, value_name = "MS", help_heading = "Goodput")]
    pub(crate) slo_ttft_ms: Option<f64>,
    /// An answer is good only if its tokens after the first took at most so many milliseconds on average
    #[arg(long, value_name = "MS", help_heading = "Goodput")]
    pub(crate) slo_itl_ms: Option<f64>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// What was varied, in words: "8 clients".
    pub(crate) name: String,
    /// What was varied, as a number: 8.
    pub(crate) x: f64,
    pub(crate) answers: usize,
    pub(crate) errors: usize,
    /// Requests that ran when the time was up, or never started.
    pub(crate) unfinished: usize,
    pub(crate) seconds: f64,
    pub(crate) prompt_tokens: u64,
    pub(crate) output_tokens: u64,
    /// Pieces in which the output came.
    #[serde(default)]
    pub(crate) pieces: u64,
    /// Prompt tokens found in a cache; `None` when the server does not say.
    pub(crate) cached_tokens: Option<u64>,
    pub(crate) requests_per_second: f64,
    pub(crate) output_tokens_per_second: f64,
    /// Prompt and output.
    pub(crate) total_tokens_per_second: f64,
    /// Time to first token.
    pub(crate) ttft_ms: Option<Spread>,
    /// Between pieces of the same answer, all answers together.
    pub(crate) itl_ms: Option<Spread>,
    /// Mean time per token after the first, one figure for each answer.
    pub(crate) tpot_ms: Option<Spread>,
    /// From due to done.
    pub(crate) e2e_ms: Option<Spread>,
    /// Answers within the SLO per second; `None` without an SLO.
    pub(crate) good_requests_per_second: Option<f64>,
    /// Answers within the SLO among all requests.
    pub(crate) good_share: Option<f64>,
    /// How late the load generator sent its requests.
    pub(crate) late_ms: Option<Spread>,
    /// Different errors, first come first, a few at most.
    pub(crate) first_errors: Vec<String>,
}

/// A distribution of times, in milliseconds; percentiles are nearest ranks over all values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Point {
    pub(crate) fn new(name: &str, x: f64, outcome: &Outcome, slo: Slo) -> Self {
        let answers = &outcome.answers;
        let seconds = outcome.elapsed.as_secs_f64();
        let rate = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let prompt_tokens: u64 = answers.iter().map(|answer| answer.usage.prompt).sum();
        let output_tokens: u64 = answers.iter().map(|answer| answer.usage.completion).sum();
        let good = slo.is_set().then(|| answers.iter().filter(|answer| slo.is_met(answer)).count() as f64);
        let requests = answers.len() + outcome.errors.len() + outcome.unfinished;
        Self {
            name: name.to_owned(),
            x,
            answers: answers.len(),
            errors: outcome.errors.len(),
            unfinished: outcome.unfinished,
            seconds,
            prompt_tokens,
            output_tokens,
            pieces: answers.iter().map(|answer| answer.pieces.len() as u64).sum(),
            cached_tokens: answers.iter().map(|answer| answer.usage.cached).sum(),
            requests_per_second: rate(answers.len() as f64),
            output_tokens_per_second: rate(output_tokens as f64),
            total_tokens_per_second: rate((prompt_tokens + output_tokens) as f64),
            ttft_ms: Spread::of(answers.iter().map(Answer::first_token)),
            itl_ms: Spread::of(answers.iter().flat_map(Answer::gaps)),
            tpot_ms: Spread::of(answers.iter().filter_map(Answer::per_token)),
            e2e_ms: Spread::of(answers.iter().map(Answer::end_to_end)),
            good_requests_per_second: good.map(rate),
            good_share: good.map(|good| good / requests.max(1) as f64),
            late_ms: Spread::of(answers.iter().map(|answer| answer.sent - answer.due)),
            first_errors: different(&outcome.errors),
        }
    }

    /// Share of prompt tokens found in a cache; `None` when the server does not say.
    pub(crate) fn cache_hit_rate(&self) -> Option<f64> {
        (self.prompt_tokens > 0).then_some(self.cached_tokens? as f64 / self.prompt_tokens as f64)
    }

    /// Requests that brought no answer.
    pub(crate) fn failures(&self) -> usize {
        self.errors + self.unfinished
    }
}

impl Slo {
    fn is_set(self) -> bool {
        self.slo_ttft_ms.is_some() || self.slo_itl_ms.is_some()
    }

    fn is_met(self, answer: &Answer) -> bool {
        let within = |time: Option<Duration>, limit: Option<f64>| match (time, limit) {
            (Some(time), Some(limit)) => milliseconds(time) <= limit,
            _ => true,
        };
        within(Some(answer.first_token()), self.slo_ttft_ms) && within(answer.per_token(), self.slo_itl_ms)
    }
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(times: impl Iterator<Item = Duration>) -> Option<Self> {
        let mut sorted: Vec<f64> = times.map(milliseconds).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied();
        Some(Self {
            p50: at(50)?,
            p95: at(95)?,
            p99: at(99)?,
            max: at(100)?,
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
        })
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn different(errors: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for error in errors {
        if kept.len() < ERRORS_KEPT && !kept.contains(error) {
            kept.push(error.clone());
        }
    }
    kept
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Instant;

    use super::*;
    use crate::answer::Usage;

    /// An answer whose first piece comes after `first` ms and the others every `gap` ms.
    pub(crate) fn answer(first: u64, gap: u64, pieces: u64) -> Answer {
        let due = Instant::now();
        let at = |index| due + Duration::from_millis(first + gap * index);
        Answer {
            due,
            sent: due,
            pieces: (0..pieces).map(at).collect(),
            end: at(pieces),
            usage: Usage { prompt: 100, completion: pieces, cached: Some(60) },
            content: String::new(),
        }
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let of = |count: u64| Spread::of((1..=count).rev().map(Duration::from_millis));
        let spread = |p50, p95, p99, max, mean| Some(Spread { mean, p50, p95, p99, max });
        assert_eq!(of(0), None);
        assert_eq!(of(1), spread(1.0, 1.0, 1.0, 1.0, 1.0));
        assert_eq!(of(10), spread(5.0, 10.0, 10.0, 10.0, 5.5));
        assert_eq!(of(100), spread(50.0, 95.0, 99.0, 100.0, 50.5));
        assert_eq!(of(1000), spread(500.0, 950.0, 990.0, 1000.0, 500.5));
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "the figures have exact values")]
    fn a_point_sums_up_its_answers() {
        let outcome = Outcome {
            answers: vec![answer(20, 10, 5), answer(80, 10, 5), answer(20, 40, 5)],
            errors: vec!["busy".into(), "busy".into(), "gone".into()],
            unfinished: 2,
            elapsed: Duration::from_secs(2),
        };
        let slo = Slo { slo_ttft_ms: Some(50.0), slo_itl_ms: Some(20.0) };
        let point = Point::new("3 clients", 3.0, &outcome, slo);
        assert_eq!((point.prompt_tokens, point.output_tokens, point.cached_tokens), (300, 15, Some(180)));
        assert_eq!((point.requests_per_second, point.output_tokens_per_second), (1.5, 7.5));
        assert_eq!((point.total_tokens_per_second, point.cache_hit_rate()), (157.5, Some(0.6)));
        assert_eq!(point.ttft_ms.unwrap().p50, 20.0);
        assert_eq!((point.itl_ms.unwrap().p50, point.itl_ms.unwrap().p99), (10.0, 40.0));
        assert_eq!(point.tpot_ms.unwrap().max, 40.0);
        // The second is late with its first token, the third with the others.
        assert_eq!((point.good_requests_per_second, point.good_share), (Some(0.5), Some(0.125)));
        assert_eq!((point.failures(), point.first_errors), (5, vec!["busy".to_owned(), "gone".to_owned()]));
        assert_eq!(Point::new("", 3.0, &outcome, Slo::default()).good_share, None);
    }
}
