//! Progress of long work: a bar on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work shorter than this is not worth a word.
const QUIET: Duration = Duration::from_millis(500);
/// How often a plain line is written.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows bytes, rate and time left of one piece of work at a time.
pub(crate) struct Progress {
    style: Style,
}

enum Style {
    Bar(ProgressBar),
    Lines { what: String, started: Instant, last: Instant, start_bytes: u64 },
}

impl Progress {
    /// Begins to report `what`, for instance "loading kimi-nano".
    pub(crate) fn start(what: &str) -> Self {
        let now = Instant::now();
        let style = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
            bar.set_style(ProgressStyle::with_template(template).expect("invariant: the template is valid"));
            bar.set_message(what.to_owned());
            Style::Bar(bar)
        } else {
            Style::Lines { what: what.to_owned(), started: now, last: now, start_bytes: 0 }
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
            Style::Lines { what, started, last, start_bytes } => {
                if *start_bytes == 0 {
                    *start_bytes = done;
                }
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    let rate = (done - *start_bytes) as f64 / started.elapsed().as_secs_f64();
                    let left = total.saturating_sub(done) as f64 / rate.max(1.0);
                    let _ = writeln!(
                        std::io::stderr(),
                        "{what}: {} of {}, {}/s, {left:.0} s left",
                        bytes(done),
                        bytes(total),
                        bytes(rate as u64),
                    );
                }
            }
        }
    }

    /// Names the part that is worked on now, such as a file.
    pub(crate) fn part(&mut self, name: &str) {
        match &mut self.style {
            Style::Bar(bar) => bar.set_message(name.to_owned()),
            Style::Lines { what, .. } => name.clone_into(what),
        }
    }
}

impl Drop for Progress {
    /// Ends the report.
    fn drop(&mut self) {
        match &self.style {
            Style::Bar(bar) => bar.finish_and_clear(),
            Style::Lines { what, started, .. } if started.elapsed() >= QUIET => {
                let _ =
                    writeln!(std::io::stderr(), "{what}: done in {:.1} s", started.elapsed().as_secs_f64());
            }
            Style::Lines { .. } => {}
        }
    }
}

/// A size for people: `595.2 GB`.
pub(crate) fn bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}
