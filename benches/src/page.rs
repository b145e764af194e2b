//! Results as a page: one file, no script, nothing fetched.

mod drawing;
mod scale;

use anyhow::Result;
use minijinja::{Environment, value::Serde};
use serde::Serialize;

use self::drawing::{Dot, Drawing, Line};
use crate::{
    report::{Chart, Report, Section, columns},
    stats::{Point, Spread},
    table::Cell,
};

/// A named figure, read off a point.
type Figure = (&'static str, Box<dyn Fn(&Point) -> Option<f64>>);

/// What the template sees.
#[derive(Debug, Serialize)]
struct Page<'a> {
    title: String,
    mode: &'a str,
    labels: Vec<&'a str>,
    reports: &'a [&'a Report],
    tiles: Vec<Tile>,
    parts: Vec<Part>,
}

/// A figure in large type.
#[derive(Debug, Serialize)]
struct Tile {
    value: String,
    unit: String,
    name: String,
    note: String,
}

/// A section's charts, and one table for each report.
#[derive(Debug, Serialize)]
struct Part {
    title: String,
    charts: Vec<Drawing>,
    tables: Vec<Table>,
}

#[derive(Debug, Serialize)]
struct Table {
    label: String,
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// One report alone, or several whose curves share their charts.
pub(crate) fn render(reports: &[&Report]) -> Result<String> {
    let mut environment = Environment::new();
    environment.add_template("page.html", include_str!("page/page.html"))?;
    let labels: Vec<&str> = reports.iter().map(|report| report.label.as_str()).collect();
    let mode = reports.first().map_or("", |report| report.mode.as_str());
    let page = Page {
        title: format!("{}: {mode}", labels.join(" against ")),
        mode,
        labels,
        reports,
        tiles: if let [report] = reports { tiles(report) } else { Vec::new() },
        parts: titles(reports).iter().map(|title| part(reports, title)).collect(),
    };
    Ok(environment.get_template("page.html")?.render(Serde(&page))?)
}

/// The sections of all reports, each once.
fn titles(reports: &[&Report]) -> Vec<String> {
    let mut titles = Vec::new();
    for section in reports.iter().flat_map(|report| &report.sections) {
        if !titles.contains(&section.title) {
            titles.push(section.title.clone());
        }
    }
    titles
}

/// The run's ratios and, of curves, their best points.
fn tiles(report: &Report) -> Vec<Tile> {
    let mut tiles: Vec<Tile> = (report.ratios.iter())
        .map(|ratio| Tile {
            value: Cell(ratio.value).to_string(),
            unit: "×".into(),
            name: ratio.name.clone(),
            note: ratio.meaning.clone(),
        })
        .collect();
    if !report.sections.iter().any(|section| section.charts.contains(&Chart::Throughput)) {
        return tiles;
    }
    let mut best = |figure: fn(&Point) -> Option<f64>, sign: f64, unit: &str, name: &str| {
        let known = report.points().filter_map(|point| Some((figure(point)?, point)));
        if let Some((value, point)) = known.min_by(|a, b| (sign * a.0).total_cmp(&(sign * b.0))) {
            let (value, note) = (Cell(value).to_string(), point.name.clone());
            tiles.push(Tile { value, unit: unit.into(), name: name.into(), note });
        }
    };
    best(|point| Some(point.output_tokens_per_second), -1.0, "tok/s", "most output");
    best(|point| point.ttft_ms.map(|spread| spread.p50), 1.0, "ms", "shortest median time to first token");
    best(|point| point.itl_ms.map(|spread| spread.p50), 1.0, "ms", "shortest median inter-token time");
    best(|point| point.good_requests_per_second, -1.0, "req/s", "most requests within the SLO");
    tiles
}

fn part(reports: &[&Report], title: &str) -> Part {
    let sections: Vec<(&str, &Section)> = (reports.iter())
        .flat_map(|report| report.sections.iter().map(|section| (report.label.as_str(), section)))
        .filter(|(_, section)| section.title == title)
        .collect();
    let tables = sections.iter().map(|(label, section)| {
        let (titles, rows) = columns(section);
        Table { label: (*label).to_owned(), titles, rows }
    });
    Part { title: title.to_owned(), charts: charts(&sections), tables: tables.collect() }
}

fn charts(sections: &[(&str, &Section)]) -> Vec<Drawing> {
    let Some((_, first)) = sections.first() else { return Vec::new() };
    let numeric = sections.iter().all(|(_, section)| section.numeric && section.points.len() > 1);
    let mut drawings = Vec::new();
    for &chart in &first.charts {
        let (title, unit, figures) = figures(chart);
        let lines = lines(sections, &figures);
        // A chart whose first figure nobody knows or reached has nothing to show.
        if lines.iter().take(1).flat_map(|line| &line.values).any(|value| value.y > 0.0) {
            drawings.push(if numeric {
                Drawing::curves(title, unit, &first.axis, &lines)
            } else {
                Drawing::bars(title, unit, &lines)
            });
        }
    }
    drawings
}

/// Title, unit and figures of a chart.
fn figures(chart: Chart) -> (&'static str, &'static str, Vec<Figure>) {
    match chart {
        Chart::Throughput => (
            "Throughput",
            "tokens per second",
            vec![
                figure("output", |point| Some(point.output_tokens_per_second)),
                figure("total", |point| Some(point.total_tokens_per_second)),
            ],
        ),
        Chart::FirstToken => ("Time to first token", "ms", percentiles(|point| point.ttft_ms)),
        Chart::InterToken => ("Inter-token time", "ms", percentiles(|point| point.itl_ms)),
        Chart::EndToEnd => ("End to end", "ms", percentiles(|point| point.e2e_ms)),
        Chart::Goodput => (
            "Goodput",
            "requests per second",
            vec![
                figure("within the SLO", |point| point.good_requests_per_second),
                figure("answered", |point| point.good_share.and(Some(point.requests_per_second))),
            ],
        ),
        Chart::CacheHits => (
            "Prompt tokens found in a cache",
            "%",
            vec![figure("cached", |point| Some(point.cache_hit_rate()? * 100.0))],
        ),
    }
}

fn figure(name: &'static str, read: fn(&Point) -> Option<f64>) -> Figure {
    (name, Box::new(read))
}

fn percentiles(read: fn(&Point) -> Option<Spread>) -> Vec<Figure> {
    let figure = |name, percentile: fn(Spread) -> f64| -> Figure {
        (name, Box::new(move |point| read(point).map(percentile)))
    };
    vec![
        figure("p50", |spread| spread.p50),
        figure("p95", |spread| spread.p95),
        figure("p99", |spread| spread.p99),
    ]
}

/// One line for each figure of a section, told apart by colours. Of several sections only the first and the last figure,
/// told apart by dashes; there, colours tell the sections apart.
fn lines(sections: &[(&str, &Section)], figures: &[Figure]) -> Vec<Line> {
    let several = sections.len() > 1;
    let mut lines = Vec::new();
    for (place, (label, section)) in sections.iter().enumerate() {
        for (index, (name, figure)) in figures.iter().enumerate() {
            if several && index > 0 && index + 1 < figures.len() {
                continue;
            }
            lines.push(Line {
                name: if several { format!("{label}, {name}") } else { (*name).to_owned() },
                colour: if several { place } else { index },
                dash: usize::from(several && index > 0),
                values: section.points.iter().filter_map(|point| dot(point, figure)).collect(),
            });
        }
    }
    lines.retain(|line| !line.values.is_empty());
    lines
}

fn dot(point: &Point, figure: impl Fn(&Point) -> Option<f64>) -> Option<Dot> {
    Some(Dot { x: point.x, y: figure(point)?, name: point.name.clone() })
}
