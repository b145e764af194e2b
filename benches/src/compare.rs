//! Two result files side by side.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::{
    page,
    report::{Ratio, Report, write},
    stats::Point,
    table::{Cell, table},
};

/// Ratios nearer to 1 than this are not called better or worse.
const NOISE: f64 = 0.1;

/// Options of `kimi-bench compare`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Compare {
    /// Results of the first server
    a: PathBuf,
    /// Results of the second server, of the same mode
    b: PathBuf,
    /// Write a page with the curves of both
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// A figure of a point, and whether more of it is better.
struct Figure {
    name: &'static str,
    more_is_better: bool,
    read: fn(&Point) -> Option<f64>,
}

const FIGURES: [Figure; 10] = [
    Figure::more("output tok/s", |point| Some(point.output_tokens_per_second)),
    Figure::more("req/s", |point| Some(point.requests_per_second)),
    Figure::less("TTFT p50 ms", |point| Some(point.ttft_ms?.p50)),
    Figure::less("TTFT p99 ms", |point| Some(point.ttft_ms?.p99)),
    Figure::less("ITL p50 ms", |point| Some(point.itl_ms?.p50)),
    Figure::less("ITL p99 ms", |point| Some(point.itl_ms?.p99)),
    Figure::less("E2E p50 ms", |point| Some(point.e2e_ms?.p50)),
    Figure::more("good req/s", |point| point.good_requests_per_second),
    Figure::more("cache hits", Point::cache_hit_rate),
    Figure::less("failed", |point| Some(point.failures() as f64)),
];

impl Figure {
    const fn more(name: &'static str, read: fn(&Point) -> Option<f64>) -> Self {
        Self { name, more_is_better: true, read }
    }

    const fn less(name: &'static str, read: fn(&Point) -> Option<f64>) -> Self {
        Self { name, more_is_better: false, read }
    }

    /// A row of the table; `None` when a side does not know the figure, or when both are 0.
    fn row(&self, name: &str, a: &Point, b: &Point) -> Option<Vec<String>> {
        let (a, b) = ((self.read)(a)?, (self.read)(b)?);
        (a > 0.0 || b > 0.0).then(|| row(name, self.name, a, b, self.more_is_better))
    }
}

impl Compare {
    /// The table, after the page is written if one is wanted.
    pub(crate) fn run(&self) -> Result<String> {
        let (mut a, mut b) = (Report::read(&self.a)?, Report::read(&self.b)?);
        ensure!(
            a.mode == b.mode,
            "{} holds {} and {} holds {}: only results of the same mode can be compared",
            self.a.display(),
            a.mode,
            self.b.display(),
            b.mode
        );
        if a.label == b.label {
            a.label += " (A)";
            b.label += " (B)";
        }
        if let Some(path) = &self.html {
            write(path, &page::render(&[&a, &b])?)?;
        }
        Ok(text(&a, &b))
    }
}

fn text(a: &Report, b: &Report) -> String {
    let titles = ["measurement", "figure", &a.label, &b.label, "ratio", "second is"].map(str::to_owned);
    let mut text = table(&titles, &rows(a, b)) + "\n\nratio: the second over the first\n";
    let different = differences(&a.settings, &b.settings);
    if !different.is_empty() {
        let _ = writeln!(text, "\nwarning: not the same load: {}", different.join(", "));
    }
    text
}

fn rows(a: &Report, b: &Report) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for section in &a.sections {
        let other = b.sections.iter().find(|other| other.title == section.title);
        for point in &section.points {
            let twin = other.and_then(|other| other.points.iter().find(|twin| twin.name == point.name));
            if let Some(twin) = twin {
                rows.extend(FIGURES.iter().filter_map(|figure| figure.row(&point.name, point, twin)));
            }
        }
    }
    for Ratio { name, value, .. } in &a.ratios {
        if let Some(other) = b.ratios.iter().find(|other| other.name == *name) {
            rows.push(vec![
                name.clone(),
                "ratio".into(),
                Cell(*value).to_string(),
                Cell(other.value).to_string(),
                Cell(other.value / value).to_string(),
                String::new(),
            ]);
        }
    }
    rows
}

fn row(name: &str, figure: &str, a: f64, b: f64, more_is_better: bool) -> Vec<String> {
    let ratio = b / a;
    let verdict = if (ratio - 1.0).abs() <= NOISE {
        "alike"
    } else if (ratio > 1.0) == more_is_better {
        "better"
    } else {
        "worse"
    };
    let ratio = if a > 0.0 { format!("{ratio:.2}") } else { "–".to_owned() };
    vec![name.into(), figure.into(), Cell(a).to_string(), Cell(b).to_string(), ratio, verdict.into()]
}

/// Settings that are not the same, named with both values.
fn differences(a: &Value, b: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let (a, b) = (a.as_object().unwrap_or(&empty), b.as_object().unwrap_or(&empty));
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let value =
        |side: &serde_json::Map<String, Value>, name: &str| side.get(name).cloned().unwrap_or_default();
    let different = names.into_iter().filter(|name| value(a, name) != value(b, name));
    different.map(|name| format!("{name} {} and {}", value(a, name), value(b, name))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_knows_which_direction_is_better() {
        let verdict = |a, b, more| row("8 clients", "x", a, b, more)[4..].join(" ");
        assert_eq!(verdict(100.0, 150.0, true), "1.50 better");
        assert_eq!(verdict(100.0, 150.0, false), "1.50 worse");
        assert_eq!(verdict(100.0, 50.0, false), "0.50 better");
        assert_eq!(verdict(100.0, 103.0, true), "1.03 alike");
        assert_eq!(verdict(0.0, 3.0, false), "– worse");
    }

    #[test]
    fn other_settings_are_named() {
        let [a, b] = [json!({"seed": 1, "rate": [1]}), json!({"seed": 2, "rate": [1], "load": "chat"})];
        assert_eq!(differences(&a, &b), ["load null and \"chat\"", "seed 1 and 2"]);
        assert!(differences(&a, &a).is_empty());
    }
}
