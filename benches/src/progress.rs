//! What is happening now, on standard error: a bar in a terminal, a line now and then elsewhere.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::{task::JoinHandle, time::sleep};

/// How often the bar is drawn.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a plain line is written.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Counts of the measurement that runs.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pieces: AtomicU64,
    running: AtomicUsize,
    answered: AtomicUsize,
    failed: AtomicUsize,
}

impl Live {
    pub(crate) fn pieces(&self, count: usize) {
        self.pieces.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn started(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, well: bool) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        let counter = if well { &self.answered } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests have ended.
    fn position(&self) -> usize {
        self.answered.load(Ordering::Relaxed) + self.failed.load(Ordering::Relaxed)
    }

    fn text(&self, seconds: f64) -> String {
        let rate = self.pieces.load(Ordering::Relaxed) as f64 / seconds.max(1e-3);
        let running = self.running.load(Ordering::Relaxed);
        let failed = self.failed.load(Ordering::Relaxed);
        let failures = if failed == 0 { String::new() } else { format!(", {failed} FAILED") };
        format!("{running} running, {rate:.0} tok/s{failures}")
    }
}

/// Shows one measurement until it is dropped.
pub(crate) struct Progress {
    live: Arc<Live>,
    name: String,
    start: Instant,
    bar: Option<ProgressBar>,
    task: JoinHandle<()>,
}

impl Progress {
    /// Begins to show `live` under `name`; `total` is how many requests there will be, if that is known.
    pub(crate) fn start(live: &Arc<Live>, name: &str, total: Option<usize>) -> Self {
        let start = Instant::now();
        let bar = stderr().is_terminal().then(|| bar(name, total));
        let task = tokio::spawn(show(live.clone(), name.to_owned(), bar.clone(), start));
        Self { live: live.clone(), name: name.to_owned(), start, bar, task }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        line(&self.live, &self.name, self.start);
    }
}

fn bar(name: &str, total: Option<usize>) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::new_spinner, |total| ProgressBar::new(total as u64));
    let template = match total {
        Some(_) => "{prefix:<24} {bar:24.cyan/dim} {pos}/{len} {elapsed:>4}  {msg}",
        None => "{prefix:<24} {spinner} {pos} {elapsed:>4}  {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_prefix(name.to_owned())
}

async fn show(live: Arc<Live>, name: String, bar: Option<ProgressBar>, start: Instant) {
    loop {
        sleep(if bar.is_some() { REDRAW } else { LINE_INTERVAL }).await;
        match &bar {
            Some(bar) => {
                bar.set_position(live.position() as u64);
                bar.set_message(live.text(start.elapsed().as_secs_f64()));
            }
            None => line(&live, &name, start),
        }
    }
}

fn line(live: &Live, name: &str, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    let (ended, text) = (live.position(), live.text(seconds));
    // Nobody is served by a measurement that stops because nobody reads its progress.
    let _ = writeln!(stderr(), "{name}: {ended} requests in {seconds:.1} s, {text}");
}
