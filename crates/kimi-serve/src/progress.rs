//! Progress of long work: a bar on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work shorter than this is not worth a word.
const QUIET: Duration = Duration::from_millis(500);
/// A line is written for each twentieth of the work: 5 %.
const LINES: u64 = 20;
/// And when so much time has gone without one, so that a slow disk is not taken for a hang.
const SILENCE: Duration = Duration::from_mins(1);

/// Shows bytes, rate and time left of one piece of work at a time.
pub(crate) struct Progress {
    style: Style,
}

enum Style {
    Bar(ProgressBar),
    Lines(Lines),
}

/// What plain lines say, and when.
struct Lines {
    /// Where they go.
    write: fn(&str),
    what: String,
    started: Instant,
    /// When the last one was written.
    last: Instant,
    /// What was there when the work began: the beginning of a download, for instance.
    start_bytes: Option<u64>,
    /// What was there at the last report.
    done: u64,
    /// Twentieths that were told.
    told: u64,
}

impl Progress {
    /// Begins to report `what`, for instance "loading kimi-nano", on standard error.
    pub(crate) fn start(what: &str) -> Self {
        Self::with_lines(what, |line| {
            // Nobody may be there to read it any more; the work goes on.
            let _ = writeln!(std::io::stderr(), "{line}");
        })
    }

    /// As [`Self::start`], but plain lines are lines of the log.
    pub(crate) fn logged(what: &str) -> Self {
        Self::with_lines(what, |line| tracing::info!("{line}"))
    }

    fn with_lines(what: &str, write: fn(&str)) -> Self {
        let style = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
            bar.set_style(ProgressStyle::with_template(template).expect("invariant: the template is valid"));
            bar.set_message(what.to_owned());
            Style::Bar(bar)
        } else {
            Style::Lines(Lines::start(what, write))
        };
        Self { style }
    }

    /// Reports that `done` of `total` bytes are there.
    pub(crate) fn set(&mut self, done: u64, total: u64) {
        match &mut self.style {
            Style::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
            }
            Style::Lines(lines) => {
                if let Some(line) = lines.line(done, total, Instant::now()) {
                    (lines.write)(&line);
                }
            }
        }
    }

    /// Names the part that is worked on now, such as a file.
    pub(crate) fn part(&mut self, name: &str) {
        match &mut self.style {
            Style::Bar(bar) => bar.set_message(name.to_owned()),
            Style::Lines(lines) => name.clone_into(&mut lines.what),
        }
    }
}

impl Lines {
    fn start(what: &str, write: fn(&str)) -> Self {
        let now = Instant::now();
        Self { write, what: what.to_owned(), started: now, last: now, start_bytes: None, done: 0, told: 0 }
    }

    /// The line that is due at `now`, if one is.
    fn line(&mut self, done: u64, total: u64, now: Instant) -> Option<String> {
        if done < self.done {
            // Other work begins: after the reading of the weights, their loading.
            let what = std::mem::take(&mut self.what);
            *self = Self { what, started: now, last: now, ..Self::start("", self.write) };
        }
        self.done = done;
        let start = *self.start_bytes.get_or_insert(done);
        let share = |parts: u64| (u128::from(done) * u128::from(parts) / u128::from(total.max(1))) as u64;
        let twentieths = share(LINES);
        let took = now - self.started;
        let is_due = (twentieths > self.told && took >= QUIET) || now - self.last >= SILENCE;
        if !is_due {
            return None;
        }
        (self.last, self.told) = (now, twentieths);
        let rate = done.saturating_sub(start) as f64 / took.as_secs_f64();
        let left = total.saturating_sub(done) as f64 / rate.max(1.0);
        Some(format!(
            "{}: {} %, {} of {}, {}/s, {left:.0} s left",
            self.what,
            share(100),
            bytes(done),
            bytes(total),
            bytes(rate as u64)
        ))
    }
}

impl Drop for Progress {
    /// Ends the report.
    fn drop(&mut self) {
        match &self.style {
            Style::Bar(bar) => bar.finish_and_clear(),
            Style::Lines(lines) if lines.started.elapsed() >= QUIET => {
                (lines.write)(&format!(
                    "{}: done in {:.1} s",
                    lines.what,
                    lines.started.elapsed().as_secs_f64()
                ));
            }
            Style::Lines(_) => {}
        }
    }
}

/// A size for people: `595.2 GB`.
pub(crate) fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many lines 10,000 reports over `seconds` give.
    fn lines(seconds: u64) -> Vec<String> {
        let mut lines = Lines::start("loading", |_| {});
        let started = lines.started;
        let at = |step: u64| started + Duration::from_millis(seconds * step / 10);
        (0..=10_000).filter_map(|step| lines.line(step << 26, 10_000 << 26, at(step))).collect()
    }

    #[test]
    fn a_line_for_each_five_percent_and_none_for_what_is_quick() {
        assert_eq!(lines(0), [""; 0]);
        let told = lines(600);
        assert_eq!(told.len(), 20, "{told:#?}");
        assert_eq!(told[9], "loading: 50 %, 312.50 GiB of 625.00 GiB, 1.04 GiB/s, 300 s left");
        // Two hours: a line a minute.
        let told = lines(7200);
        assert!((115..=140).contains(&told.len()), "{}", told.len());
    }
}
