//! The geometry of charts; the page's template draws them.

use serde::Serialize;

use super::scale::{Scale, linear_ticks, log_ticks, range, spreads};
use crate::table::Cell;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 544.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 252.0;
/// Names on the x axis are at least so far apart.
const NAME_WIDTH: f64 = 30.0;
/// From this ratio of the largest to the smallest time on, the y axis is logarithmic.
const TALL: f64 = 40.0;
/// The same for the x axis.
const WIDE: f64 = 8.0;

/// What is to be drawn.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// Which colour and which dashes, from 0.
    pub(super) colour: usize,
    pub(super) dash: usize,
    pub(super) values: Vec<Dot>,
}

#[derive(Clone, Debug)]
pub(super) struct Dot {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) name: String,
}

/// A chart, in the coordinates of its SVG.
#[derive(Debug, Serialize)]
pub(super) struct Drawing {
    title: String,
    unit: String,
    axis: String,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    bottom: f64,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    series: Vec<Series>,
}

#[derive(Debug, Serialize)]
struct Tick {
    at: f64,
    text: String,
}

#[derive(Debug, Serialize)]
struct Series {
    name: String,
    colour: usize,
    dash: usize,
    /// Points of a polyline.
    line: String,
    dots: Vec<Mark>,
    bars: Vec<Mark>,
}

/// A dot's middle, or the upper left corner of a bar.
#[derive(Debug, Serialize)]
struct Mark {
    x: f64,
    y: f64,
    width: f64,
    /// What it stands for, shown when it is pointed at.
    tip: String,
    /// Its value, short.
    text: String,
}

impl Drawing {
    /// Curves over a quantity.
    pub(super) fn curves(title: &str, unit: &str, axis: &str, lines: &[Line]) -> Self {
        let xs = || lines.iter().flat_map(|line| &line.values).map(|value| value.x);
        let ys = || lines.iter().flat_map(|line| &line.values).map(|value| value.y);
        let x = Scale::new(range(xs()), spreads(xs(), WIDE), (LEFT + 16.0, RIGHT - 16.0));
        let log = unit == "ms" && spreads(ys(), TALL);
        let (smallest, largest) = range(ys());
        let ticks = if log { log_ticks(smallest, largest) } else { linear_ticks(largest) };
        let y = Scale::new(range(ticks.iter().copied()), log, (BOTTOM, TOP));
        let mut drawing = Self::frame(title, unit, &ticks, y);
        axis.clone_into(&mut drawing.axis);
        if log {
            drawing.unit.push_str(", logarithmic");
        }
        drawing.x_ticks = names(xs().collect(), x);
        drawing.series = lines.iter().map(|line| curve(line, unit, x, y)).collect();
        drawing
    }

    /// Bars in groups, one group for each name.
    pub(super) fn bars(title: &str, unit: &str, lines: &[Line]) -> Self {
        let (_, largest) = range(lines.iter().flat_map(|line| &line.values).map(|value| value.y));
        let ticks = linear_ticks(largest);
        let y = Scale::new(range(ticks.iter().copied()), false, (BOTTOM, TOP));
        let mut drawing = Self::frame(title, unit, &ticks, y);
        let mut groups: Vec<&str> = Vec::new();
        for value in lines.iter().flat_map(|line| &line.values) {
            if !groups.contains(&value.name.as_str()) {
                groups.push(&value.name);
            }
        }
        let group_width = (RIGHT - LEFT) / groups.len() as f64;
        let bar_width = (group_width * 0.7 / lines.len() as f64).min(48.0);
        let middle = |group: usize| LEFT + group_width * (group as f64 + 0.5);
        let ticks = groups.iter().enumerate();
        drawing.x_ticks =
            ticks.map(|(group, name)| Tick { at: middle(group), text: (*name).to_owned() }).collect();
        for (index, line) in lines.iter().enumerate() {
            let offset = bar_width * (index as f64 - lines.len() as f64 / 2.0);
            let mut series = Series::new(line);
            for value in &line.values {
                let group = groups.iter().position(|name| *name == value.name).unwrap_or_default();
                series.bars.push(Mark::new(
                    line,
                    value,
                    unit,
                    (middle(group) + offset, y.at(value.y)),
                    bar_width - 3.0,
                ));
            }
            drawing.series.push(series);
        }
        drawing
    }

    fn frame(title: &str, unit: &str, ticks: &[f64], y: Scale) -> Self {
        let decimals = ticks.iter().any(|tick| tick.fract() != 0.0);
        let text =
            |tick: f64| if decimals { format!("{}", (tick * 1e3).round() / 1e3) } else { thousands(tick) };
        Self {
            title: title.to_owned(),
            unit: unit.to_owned(),
            axis: String::new(),
            width: WIDTH,
            height: HEIGHT,
            left: LEFT,
            right: RIGHT,
            bottom: BOTTOM,
            x_ticks: Vec::new(),
            y_ticks: ticks.iter().map(|&tick| Tick { at: y.at(tick), text: text(tick) }).collect(),
            series: Vec::new(),
        }
    }
}

impl Series {
    fn new(line: &Line) -> Self {
        let (name, line_points) = (line.name.clone(), String::new());
        Self {
            name,
            colour: line.colour,
            dash: line.dash,
            line: line_points,
            dots: Vec::new(),
            bars: Vec::new(),
        }
    }
}

impl Mark {
    fn new(line: &Line, value: &Dot, unit: &str, (x, y): (f64, f64), width: f64) -> Self {
        let text = Cell(value.y).to_string();
        let tip = format!("{}, {}: {text} {unit}", value.name, line.name);
        let round = |position: f64| (position * 10.0).round() / 10.0;
        Self { x: round(x), y, width: round(width), tip, text }
    }
}

fn curve(line: &Line, unit: &str, x: Scale, y: Scale) -> Series {
    let dot = |value: &Dot| Mark::new(line, value, unit, (x.at(value.x), y.at(value.y)), 0.0);
    let mut series = Series::new(line);
    series.dots = line.values.iter().map(dot).collect();
    let points: Vec<String> = series.dots.iter().map(|dot| format!("{},{}", dot.x, dot.y)).collect();
    series.line = points.join(" ");
    series
}

/// The measured values themselves, where there is room.
fn names(mut values: Vec<f64>, scale: Scale) -> Vec<Tick> {
    values.sort_unstable_by(f64::total_cmp);
    values.dedup();
    let mut ticks: Vec<Tick> = Vec::new();
    for value in values {
        let at = scale.at(value);
        if ticks.last().is_none_or(|last| at - last.at >= NAME_WIDTH) {
            ticks.push(Tick { at, text: thousands(value) });
        }
    }
    ticks
}

/// 12,500 for 12500.
fn thousands(value: f64) -> String {
    if value.fract() != 0.0 || value.abs() < 1e4 {
        return value.to_string();
    }
    let digits = format!("{value:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[(f64, f64)]) -> Line {
        let values = values.iter().map(|&(x, y)| Dot { x, y, name: format!("{x} clients") }).collect();
        Line { name: "p50".into(), colour: 0, dash: 0, values }
    }

    #[test]
    fn curves_stay_in_their_frame_and_rise_with_their_values() {
        let drawing =
            Drawing::curves("Time", "ms", "clients", &[line(&[(1.0, 5.0), (4.0, 10.0), (64.0, 900.0)])]);
        let dots = &drawing.series[0].dots;
        assert_eq!(drawing.unit, "ms, logarithmic");
        assert!(dots.windows(2).all(|pair| pair[0].x < pair[1].x && pair[0].y > pair[1].y));
        assert!(dots.iter().all(|dot| (LEFT..=RIGHT).contains(&dot.x) && (TOP..=BOTTOM).contains(&dot.y)));
        assert_eq!(dots[2].tip, "64 clients, p50: 900 ms");
        let names: Vec<&str> = drawing.x_ticks.iter().map(|tick| tick.text.as_str()).collect();
        assert_eq!(names, ["1", "4", "64"]);
    }

    #[test]
    fn bars_stand_in_groups_and_begin_at_zero() {
        let drawing = Drawing::bars("Time", "ms", &[line(&[(0.0, 5.0), (1.0, 10.0)]), line(&[(0.0, 7.0)])]);
        let bars: Vec<&Mark> = drawing.series.iter().flat_map(|series| &series.bars).collect();
        assert_eq!((bars.len(), drawing.x_ticks.len(), drawing.y_ticks[0].text.as_str()), (3, 2, "0"));
        assert!(bars[0].x + bars[0].width <= bars[2].x, "bars of a group stand side by side");
        assert_eq!(thousands(1_250_000.0), "1,250,000");
    }
}
