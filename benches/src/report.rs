//! What a run found out: a file to keep, a table to read.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    page,
    stats::{Point, Spread},
    table::{Cell, table},
    text::Tokens,
};

/// Where the results go, as options.
#[derive(Clone, Debug, Args)]
pub(crate) struct OutputArgs {
    /// Keep the results in this file, for `kimi-bench compare` and `kimi-bench report`
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with curves, complete in itself
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) html: Option<PathBuf>,
}

/// All measurements of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Which program wrote it.
    pub(crate) tool: String,
    pub(crate) mode: String,
    /// What the server is called in tables and pages.
    pub(crate) label: String,
    pub(crate) created: String,
    pub(crate) base_url: String,
    pub(crate) model: String,
    /// The options of the run.
    pub(crate) settings: Value,
    /// How many tokens a word was taken for.
    pub(crate) tokens: Tokens,
    pub(crate) sections: Vec<Section>,
    pub(crate) ratios: Vec<Ratio>,
    /// What makes the figures doubtful.
    pub(crate) warnings: Vec<String>,
}

/// Measurements that differ in one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Section {
    pub(crate) title: String,
    /// What was varied.
    pub(crate) axis: String,
    /// Whether `x` is a quantity, or only the place of a name.
    pub(crate) numeric: bool,
    /// What its page draws, in this order.
    pub(crate) charts: Vec<Chart>,
    pub(crate) points: Vec<Point>,
}

/// What a chart shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Chart {
    Throughput,
    FirstToken,
    InterToken,
    EndToEnd,
    Goodput,
    CacheHits,
}

impl Chart {
    pub(crate) const ALL: [Self; 6] = [
        Self::Throughput,
        Self::FirstToken,
        Self::InterToken,
        Self::EndToEnd,
        Self::Goodput,
        Self::CacheHits,
    ];
}

/// One figure against another of the same run: what may be quoted, because the machine cancels out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// How it was computed.
    pub(crate) meaning: String,
}

/// What a mode found out.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) sections: Vec<Section>,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) warnings: Vec<String>,
}

impl Findings {
    /// Warns when points that should have asked something new found it in a cache.
    pub(crate) fn expect_misses<'a>(&mut self, mut points: impl Iterator<Item = &'a Point>) {
        const HITS: f64 = 0.2;
        if points.any(|point| point.cache_hit_rate() > Some(HITS)) {
            self.warnings.push(
                "prompts that should be new were found in the server's cache: it has seen this seed; restart it or \
                 give another --seed"
                    .to_owned(),
            );
        }
    }

    /// Warns when many tokens brought nothing, so that the time between pieces is not that between tokens.
    pub(crate) fn expect_pieces(&mut self) {
        const SHARE: f64 = 0.9;
        let points = || self.sections.iter().flat_map(|section| &section.points);
        let [pieces, tokens] = [
            points().map(|point| point.pieces).sum::<u64>(),
            points().map(|point| point.output_tokens).sum::<u64>(),
        ];
        if (pieces as f64) < SHARE * tokens as f64 {
            self.warnings.push(format!(
                "{tokens} tokens came in {pieces} pieces, so ITL is not the time of a token; a model that is made to go on \
                 behind its end writes markers nobody sees: try --min-tokens instead of --ignore-eos"
            ));
        }
    }

    /// Warns when requests were sent late.
    pub(crate) fn expect_punctuality(&mut self) {
        const LATE_MS: f64 = 20.0;
        let points = self.sections.iter().flat_map(|section| &section.points);
        let late = points.filter_map(|point| point.late_ms).map(|late| late.p99).fold(0.0, f64::max);
        if late > LATE_MS {
            self.warnings.push(format!(
                "the load generator sent requests up to {late:.0} ms late (p99); give it a core of its own"
            ));
        }
    }

    /// Adds `above / below`, if both are known.
    pub(crate) fn ratio(&mut self, name: &str, above: Option<f64>, below: Option<f64>, meaning: &str) {
        if let (Some(above), Some(below)) = (above, below)
            && below > 0.0
        {
            let (name, meaning) = (name.to_owned(), meaning.to_owned());
            self.ratios.push(Ratio { name, value: above / below, meaning });
        }
    }
}

impl Report {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not a file that kimi-bench --json wrote", path.display()))
    }

    /// Writes the files that were asked for.
    pub(crate) fn write(&self, output: &OutputArgs) -> Result<()> {
        if let Some(path) = &output.json {
            write(path, &(serde_json::to_string_pretty(self)? + "\n"))?;
        }
        if let Some(path) = &output.html {
            write(path, &page::render(&[self])?)?;
        }
        Ok(())
    }

    pub(crate) fn points(&self) -> impl Iterator<Item = &Point> {
        self.sections.iter().flat_map(|section| &section.points)
    }

    /// Whether any request failed or did not finish.
    pub(crate) fn has_failures(&self) -> bool {
        self.points().any(|point| point.failures() > 0)
    }

    /// Markdown: a table for each section, then ratios, warnings and errors.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{} {}: {} at {}\n", self.tool, self.mode, self.model, self.base_url);
        for section in &self.sections {
            let _ = write!(text, "\n{}\n\n{}\n", section.title, section_table(section));
        }
        if !self.ratios.is_empty() {
            text.push('\n');
        }
        for ratio in &self.ratios {
            let _ = writeln!(text, "{}: {:.2} ({})", ratio.name, ratio.value, ratio.meaning);
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "\nwarning: {warning}");
        }
        for point in self.points() {
            for error in &point.first_errors {
                let _ = writeln!(text, "\nfailed, {}: {error}", point.name);
            }
        }
        text
    }
}

/// Writes a file of results.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The time of writing, in words.
pub(crate) fn now() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

/// Titles and cells of a section, without columns that nothing is known for.
pub(crate) fn columns(section: &Section) -> (Vec<String>, Vec<Vec<String>>) {
    let spread = |spread: Option<Spread>| match spread {
        Some(spread) => {
            format!("{} / {} / {}", Cell(spread.p50), Cell(spread.p95), Cell(spread.p99))
        }
        None => String::new(),
    };
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| Cell(value).to_string());
    let percent =
        |value: Option<f64>| value.map_or_else(String::new, |value| format!("{:.1} %", value * 100.0));
    let count = |count: usize| if count == 0 { String::new() } else { count.to_string() };
    let mut titles: Vec<String> = [
        &section.axis,
        "answers",
        "failed",
        "unfinished",
        "output tok/s",
        "total tok/s",
        "req/s",
        "TTFT p50/95/99 ms",
        "ITL p50/95/99 ms",
        "E2E p50/95/99 ms",
        "good req/s",
        "good",
        "cache hits",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for point in &section.points {
        // A point may hold the gaps of a part of another point's time.
        let rate = |rate: f64| number((point.seconds > 0.0).then_some(rate));
        rows.push(vec![
            point.name.clone(),
            count(point.answers),
            count(point.errors),
            count(point.unfinished),
            rate(point.output_tokens_per_second),
            rate(point.total_tokens_per_second),
            rate(point.requests_per_second),
            spread(point.ttft_ms),
            spread(point.itl_ms),
            spread(point.e2e_ms),
            number(point.good_requests_per_second),
            percent(point.good_share),
            percent(point.cache_hit_rate()),
        ]);
    }
    for column in (0..titles.len()).rev() {
        if rows.iter().all(|row| row[column].is_empty()) {
            titles.remove(column);
            for row in &mut rows {
                row.remove(column);
            }
        }
    }
    (titles, rows)
}

fn section_table(section: &Section) -> String {
    let (titles, rows) = columns(section);
    table(&titles, &rows)
}
