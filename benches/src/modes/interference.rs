//! Interference: do streams stutter when somebody sends a long prompt?

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    answer::Answer,
    bench::{Bench, BenchArgs},
    drive::{Outcome, Supply},
    load::Load,
    modes::Mode,
    options::positive,
    progress::Progress,
    report::{Chart, Findings, Section},
    stats::{Point, Slo, Spread},
};

/// Time for the streams to get going, and between two long prompts.
const PAUSE: Duration = Duration::from_secs(1);
/// Tokens of the answer to a long prompt.
const LONG_OUTPUT: usize = 8;

/// Options of `kimi-bench interference`.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct Interference {
    /// Clients that stream all the time
    #[arg(long, default_value_t = 4)]
    streams: usize,
    /// Tokens of each stream's prompt
    #[arg(long, default_value_t = 32)]
    stream_prompt_tokens: usize,
    /// The most tokens of each stream's answers; it then asks again
    #[arg(long, default_value_t = 256)]
    stream_output_tokens: usize,
    /// Tokens of the long prompts
    #[arg(long, default_value_t = 4096)]
    prompt_tokens: usize,
    /// Long prompts, one after the other, once alone and once beside the streams
    #[arg(long, default_value_t = 8)]
    requests: usize,
    /// Seconds of the streams alone
    #[arg(long, default_value_t = 15.0, value_parser = positive)]
    duration: f64,
    #[command(flatten)]
    #[serde(flatten)]
    bench: BenchArgs,
}

/// From a long prompt's sending to its first token.
type Window = (Instant, Instant);

impl Mode for Interference {
    fn name(&self) -> &'static str {
        "interference"
    }

    fn bench(&self) -> &BenchArgs {
        &self.bench
    }

    async fn run(&self, bench: &Bench) -> Result<Findings> {
        bench.warm_up(&self.stream_load(), self.streams).await?;
        let long_alone = self.long_prompts(bench, "long prompts alone", Duration::ZERO).await;

        let streams = Streams::start(self, bench, Some("streams alone"));
        sleep(Duration::from_secs_f64(self.duration)).await;
        let alone = streams.stop().await?;

        let streams = Streams::start(self, bench, None);
        sleep(PAUSE).await;
        let long_beside = self.long_prompts(bench, "long prompts beside streams", PAUSE).await;
        let beside = streams.stop().await?;

        Ok(findings(self, bench, &[alone, beside], &[long_alone, long_beside]))
    }
}

impl Interference {
    fn stream_load(&self) -> Load {
        Load::fixed(self.stream_prompt_tokens, self.stream_output_tokens)
    }

    /// One long prompt after the other.
    async fn long_prompts(&self, bench: &Bench, name: &str, pause: Duration) -> Outcome {
        let load = Load::fixed(self.prompt_tokens, LONG_OUTPUT);
        let driver = bench.driver();
        let _progress = Progress::start(&driver.live, name, Some(self.requests));
        let mut outcome = Outcome::default();
        for conversation in bench.conversations(&load, self.requests) {
            let start = Instant::now();
            outcome.add(driver.converse(&conversation, start).await);
            outcome.elapsed += start.elapsed();
            sleep(pause).await;
        }
        outcome
    }
}

/// Clients that stream until they are told to stop.
struct Streams {
    stopped: Arc<AtomicBool>,
    task: JoinHandle<Result<Outcome>>,
}

impl Streams {
    /// `name` is for their progress, when nothing else shows its own.
    fn start(options: &Interference, bench: &Bench, name: Option<&str>) -> Self {
        /// More conversations than any run asks.
        const PLENTY: usize = 1 << 32;
        let stopped = Arc::new(AtomicBool::new(false));
        let driver = bench.driver();
        let (load, tokens, seed) = (options.stream_load(), bench.tokens, bench.template.seed);
        let (next, flag) = (AtomicU64::new(bench.fresh(PLENTY).start), stopped.clone());
        let supply: Supply = Arc::new(move || {
            let index = next.fetch_add(1, Ordering::Relaxed);
            (!flag.load(Ordering::Relaxed)).then(|| load.conversation(tokens, seed, index))
        });
        let clients = options.streams;
        let progress = name.map(|name| Progress::start(&driver.live, name, None));
        let task = tokio::spawn(async move {
            let _progress = progress;
            driver.closed_loop(clients, &supply).await
        });
        Self { stopped, task }
    }

    /// What they got; their last answers are waited for.
    async fn stop(self) -> Result<Outcome> {
        self.stopped.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

fn findings(options: &Interference, bench: &Bench, streams: &[Outcome; 2], long: &[Outcome; 2]) -> Findings {
    let names = ["alone", "with long prompts"];
    let point = |outcomes: &[Outcome; 2], index: usize| {
        Point::new(names[index], index as f64, &outcomes[index], bench.slo)
    };
    let windows: Vec<Window> = long[1].answers.iter().map(window).collect();
    // The whole time is mostly undisturbed; what a stream's reader feels are the gaps while a long prompt waits.
    let during = Spread::of(streams[1].answers.iter().flat_map(|answer| gaps_within(answer, &windows)));
    let [alone, beside] = [0, 1].map(|index| point(streams, index));
    let [long_alone, long_beside] = [0, 1].map(|index| point(long, index));
    let mut findings = Findings::default();
    findings.expect_misses([&long_alone, &long_beside].into_iter());
    let p99 = |spread: Option<Spread>| spread.map(|spread| spread.p99);
    let median = |point: &Point| point.ttft_ms.map(|spread| spread.p50);
    findings.ratio(
        "p99 inter-token time of streams during a long prompt, over alone",
        p99(during),
        p99(alone.itl_ms),
        "gaps that overlap the time from a long prompt's sending to its first token",
    );
    findings.ratio(
        "p99 inter-token time of streams over the whole time, over alone",
        p99(beside.itl_ms),
        p99(alone.itl_ms),
        "all gaps, with the pauses between long prompts",
    );
    findings.ratio(
        "first token of a long prompt beside streams, over alone",
        median(&long_beside),
        median(&long_alone),
        "median TTFT; what the streams take from it",
    );
    let nothing = Point::new("during a long prompt", 2.0, &Outcome::default(), Slo::default());
    let during = Point { itl_ms: during, ..nothing };
    let section = |title: String, axis: &str, chart: Chart, points: Vec<Point>| Section {
        title,
        axis: axis.into(),
        numeric: false,
        charts: vec![chart],
        points,
    };
    let title = format!("{} streams", options.streams);
    findings.sections.push(section(title, "streams", Chart::InterToken, vec![alone, beside, during]));
    let title = format!("Prompts of {} tokens", options.prompt_tokens);
    findings.sections.push(section(title, "long prompts", Chart::FirstToken, vec![long_alone, long_beside]));
    findings
}

fn window(answer: &Answer) -> Window {
    (answer.sent, answer.pieces[0])
}

/// Gaps that overlap a window.
fn gaps_within(answer: &Answer, windows: &[Window]) -> Vec<Duration> {
    let overlaps = |from: Instant, to: Instant| windows.iter().any(|&(start, end)| from < end && start < to);
    let pairs = answer.pieces.windows(2).filter(|pair| overlaps(pair[0], pair[1]));
    pairs.map(|pair| pair[1] - pair[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::tests::answer;

    #[test]
    fn only_gaps_that_overlap_a_window_are_taken() {
        let answer = answer(100, 10, 6);
        let at = |ms| answer.due + Duration::from_millis(ms);
        let count = |windows: &[Window]| gaps_within(&answer, windows).len();
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[(at(0), at(100))]), 0, "ends as the first gap begins");
        assert_eq!(count(&[(at(112), at(118))]), 1, "within one gap");
        assert_eq!(count(&[(at(115), at(121)), (at(149), at(500))]), 3, "two gaps and the last one");
    }
}
