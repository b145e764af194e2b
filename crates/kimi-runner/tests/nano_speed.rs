//! How much of a step is not the model: kimi-nano with and without engine, scheduler, channels and sampling.
//!
//! `cargo test --release -p kimi-runner --test nano_speed -- --ignored --nocapture`
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{sync::Arc, time::Instant};

use kimi_engine::{
    EngineHandle, EngineThread, GenerateRequest, Sampling, SchedulerConfig, Speculation, TokenEvent,
};
use kimi_k2::{Batch, KimiModel, KvPool, SequenceSpan};
use kimi_runner::{CacheDtype, RunnerConfig, UNIFORM_ROWS};
use kimi_tokens::TokenId;

const BLOCK_SIZE: usize = 16;
const PROMPT: usize = 32;
const ANSWER: usize = 128;

/// Milliseconds of one decode step of the model alone.
fn model_step(streams: usize) -> f64 {
    let model = KimiModel::load(&support::checkpoint("kimi-nano"), &mut |_, _| {}).unwrap();
    let blocks = (PROMPT + ANSWER).div_ceil(BLOCK_SIZE);
    let mut kv = KvPool::new(model.config(), blocks * streams, BLOCK_SIZE, CacheDtype::F32).unwrap();
    let tables: Vec<Arc<[u32]>> = (0..streams)
        .map(|stream| (0..blocks).map(|block| (stream * blocks + block) as u32).collect())
        .collect();
    let start = Instant::now();
    for position in PROMPT..PROMPT + ANSWER {
        let spans = tables.iter().enumerate();
        let spans = spans.map(|(row, table)| SequenceSpan {
            rows: row..row + 1,
            start: position,
            block_table: table.clone(),
        });
        let batch = Batch {
            token_ids: vec![(position % 100) as u32; streams],
            spans: spans.collect(),
            sample_rows: (0..streams as u32).collect(),
            features: vec![],
        };
        model.forward(&batch, &mut kv).unwrap();
    }
    start.elapsed().as_secs_f64() * 1e3 / ANSWER as f64
}

/// An engine over kimi-nano for so many streams.
fn engine(
    streams: usize,
    max_context: usize,
    speculation: Option<Speculation>,
) -> (EngineHandle, EngineThread) {
    let config = RunnerConfig { max_batch_tokens: 4096, ..support::exact(streams, max_context) };
    let model = support::checkpoint("kimi-nano");
    support::start(&model, &config, |scheduler| SchedulerConfig { speculation, ..scheduler })
}

fn request(prompt: Vec<TokenId>, sampling: Sampling, max_tokens: usize) -> GenerateRequest {
    GenerateRequest { sampling, ..support::greedy(prompt, max_tokens) }
}

/// Milliseconds of one step when the engine drives it.
fn engine_step(streams: usize, sampling: &Sampling) -> f64 {
    let (engine, _thread) = engine(streams, PROMPT + ANSWER, None);
    let streams: Vec<_> = (0..streams)
        .map(|stream| {
            let sampling = Sampling { seed: stream as u64, ..sampling.clone() };
            engine.generate(request(vec![stream as u32 + 5; PROMPT], sampling, ANSWER)).unwrap()
        })
        .collect();
    let mut start = None;
    for mut stream in streams {
        while stream.blocking_next().is_some() {
            start.get_or_insert_with(Instant::now);
        }
    }
    start.unwrap().elapsed().as_secs_f64() * 1e3 / (ANSWER - 1) as f64
}

#[test]
#[ignore = "prints timings; run it alone"]
fn step_speed() {
    let top_p = Sampling { temperature: 1.0, top_p: 0.95, ..Sampling::greedy() };
    println!("streams  model ms  engine greedy ms  engine top-p ms  tok/s");
    for streams in [1, 4, 16, 32] {
        let (model, greedy) = (model_step(streams), engine_step(streams, &Sampling::greedy()));
        let sampled = engine_step(streams, &top_p);
        println!(
            "{streams:7}  {model:8.3}  {greedy:16.3}  {sampled:15.3}  {:6.0}",
            streams as f64 / greedy * 1e3
        );
    }
}

/// Seconds that processors worked for this process. On a busy machine they say more than the clock.
fn processor_seconds() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let nanoseconds = threads.map(|thread| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        stat.split(' ').next().unwrap().parse::<f64>().unwrap()
    });
    nanoseconds.sum::<f64>() / 1e9
}

/// Seconds from the first token to the last of streams that begin together, by the clock and of processors, and their
/// tokens.
fn decode(engine: &EngineHandle, requests: Vec<GenerateRequest>) -> ([f64; 2], Vec<TokenId>) {
    let streams: Vec<_> = requests.into_iter().map(|request| engine.generate(request).unwrap()).collect();
    let (mut start, mut tokens) = (None, Vec::new());
    for mut stream in streams {
        while let Some(event) = stream.blocking_next() {
            start.get_or_insert_with(|| (Instant::now(), processor_seconds()));
            if let TokenEvent::Token(token) = event {
                tokens.push(token.id);
            }
        }
    }
    let (clock, processors) = start.unwrap();
    ([clock.elapsed().as_secs_f64(), processor_seconds() - processors], tokens)
}

/// Median, first and last quartile.
fn quartiles(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let [low, median, high] = [1, 2, 3].map(|quarter| values[values.len() * quarter / 4]);
    format!("{median:.2} ({low:.2} to {high:.2})")
}

/// The time of answers with and without speculation, turn and turn about, as ratios. Linux only.
///
/// `cargo test --release -p kimi-runner --test nano_speed -- --ignored --nocapture speculation_speed`
#[test]
#[ignore = "prints timings; run it alone"]
fn speculation_speed() {
    const ROUNDS: u64 = 11;
    let speculation = Speculation { max_draft: 8, max_rows: UNIFORM_ROWS, eager: false };
    let sampled = |temperature| Sampling { temperature, ..Sampling::greedy() };
    // What an answer without an end becomes: greedy, kimi-nano soon repeats itself; hot, it says random tokens.
    let cases = [
        ("control: plain and plain", sampled(5.0), (64, 128), 1, None),
        ("repeats itself", sampled(0.0), (64, 512), 1, Some(speculation)),
        ("repeats itself, 4 streams", sampled(0.0), (64, 512), 4, Some(speculation)),
        ("repeats itself, long prompt", sampled(0.0), (2000, 512), 1, Some(speculation)),
        ("temperature 1", sampled(1.0), (64, 128), 1, Some(speculation)),
        ("random", sampled(5.0), (64, 128), 1, Some(speculation)),
        ("random, 4 streams", sampled(5.0), (64, 128), 4, Some(speculation)),
        ("random, long prompt", sampled(5.0), (2000, 128), 1, Some(speculation)),
    ];
    println!("answer                       plain/drafts: clock  processors           drafted  accepted  of");
    for (name, sampling, (prompt, answer), streams, speculation) in cases {
        let (plain, _one) = engine(streams, 4096, None);
        let (drafting, _other) = engine(streams, 4096, speculation);
        let mut ratios = [Vec::new(), Vec::new()];
        for seed in 0..ROUNDS {
            let requests = || {
                let requests = (0..streams as u64).map(|stream| {
                    let noise = |i: u64| ((i * i * 7919 + seed * 104_729 + stream * 1299) % 1700) as u32;
                    let sampling = Sampling { seed: seed * 8 + stream, ..sampling.clone() };
                    request((0..prompt).map(noise).collect(), sampling, answer)
                });
                requests.collect()
            };
            let engines = if seed % 2 == 0 { [&plain, &drafting] } else { [&drafting, &plain] };
            let mut times = engines.map(|engine| decode(engine, requests()));
            if seed % 2 == 1 {
                times.reverse();
            }
            assert_eq!(times[0].1, times[1].1, "drafts change no text");
            (0..2).for_each(|clock| ratios[clock].push(times[0].0[clock] / times[1].0[clock]));
        }
        let [clock, processors] = ratios.map(quartiles);
        let load = drafting.load();
        println!(
            "{name:28} {clock:20} {processors:20} {:7}  {:8}  {}",
            load.draft_tokens,
            load.accepted_tokens,
            ROUNDS * streams as u64 * answer as u64
        );
    }
}
