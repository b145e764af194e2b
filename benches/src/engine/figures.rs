//! What was found about a case, as a row of a table and as JSON.

use serde::Serialize;

use super::{
    case::{Case, Run},
    limit::{Machine, Needs},
};
use crate::table::{Cell, table};

const UNKNOWN: &str = "–";

/// A round of a case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) run: Run,
    /// What the machine gave in it.
    pub(super) machine: Machine,
    /// Seconds of a step beside busy cores.
    pub(super) beside_seconds: Option<f64>,
}

/// Medians over the rounds of a case.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    name: String,
    #[serde(flatten)]
    case: Case,
    tokens_per_second: f64,
    slowest: f64,
    fastest: f64,
    step_ms: f64,
    /// That a step reads, weights and cache.
    step_bytes: f64,
    memory_gb_per_second: f64,
    /// Share of the speed that memory and multipliers allow.
    of_limit: f64,
    /// Share of the speed that is left beside busy cores.
    beside_busy: Option<f64>,
    peak_bytes: Option<u64>,
    /// Of the checkpoint and of the cache.
    file_and_cache_bytes: u64,
    grown_bytes: Option<i64>,
}

impl Figures {
    pub(super) fn new(case: Case, rounds: &[Round], needs: &Needs, file_and_cache_bytes: u64) -> Self {
        let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
        let share = |round: &Round| Some(round.run.seconds / round.beside_seconds?);
        let beside: Vec<_> = rounds.iter().filter_map(share).collect();
        let speed = |round: &Round| case.tokens() as f64 / round.run.seconds;
        Self {
            name: case.name(),
            case,
            tokens_per_second: of(&speed),
            slowest: rounds.iter().map(speed).fold(f64::INFINITY, f64::min),
            fastest: rounds.iter().map(speed).fold(0.0, f64::max),
            step_ms: of(&|round| round.run.seconds * 1e3),
            step_bytes: needs.bytes(case),
            memory_gb_per_second: of(&|round| round.machine.bandwidth / 1e9),
            of_limit: of(&|round| needs.least_seconds(case, round.machine) / round.run.seconds),
            beside_busy: (!beside.is_empty()).then(|| median(beside)),
            peak_bytes: rounds.iter().filter_map(|round| round.run.peak_bytes).max(),
            file_and_cache_bytes,
            grown_bytes: rounds.iter().filter_map(|round| round.run.grown_bytes).max(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let cell = |number: f64| Cell(number).to_string();
        let known =
            |number: Option<f64>, show: &dyn Fn(f64) -> String| number.map_or(UNKNOWN.to_owned(), show);
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let peak = self.peak_bytes.map(|bytes| bytes as f64);
        vec![
            self.name.clone(),
            cell(self.tokens_per_second),
            cell(self.slowest),
            cell(self.fastest),
            cell(self.step_ms),
            cell(self.step_bytes / self.step_ms / 1e6),
            percent(self.of_limit),
            known(self.beside_busy, &percent),
            known(peak, &|bytes| cell(bytes / 1e6)),
            known(peak, &|bytes| cell(bytes / self.file_and_cache_bytes as f64)),
            known(self.grown_bytes.map(|bytes| bytes as f64), &|bytes| cell(bytes / 1e6)),
        ]
    }
}

/// A title and a table.
pub(super) fn text(model: &str, figures: &[Figures]) -> String {
    let titles = [
        "",
        "tokens/s",
        "slowest",
        "fastest",
        "ms a step",
        "GB/s",
        "of the limit",
        "beside busy cores",
        "peak MB",
        "of file and cache",
        "grown MB",
    ];
    let rows: Vec<_> = figures.iter().map(Figures::cells).collect();
    // Columns that nothing is known for are left out.
    let known: Vec<_> = (0..titles.len()).filter(|&at| rows.iter().any(|row| row[at] != UNKNOWN)).collect();
    let titles: Vec<_> = known.iter().map(|&at| titles[at].to_owned()).collect();
    let rows: Vec<_> =
        rows.iter().map(|row| known.iter().map(|&at| row[at].clone()).collect::<Vec<_>>()).collect();
    let memory = median(figures.iter().map(|figures| figures.memory_gb_per_second).collect());
    format!("{model}, memory reads {memory:.1} GB/s\n\n{}\n", table(&titles, &rows))
}

/// The upper one when there is no middle.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
