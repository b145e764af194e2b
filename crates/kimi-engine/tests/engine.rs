//! The engine over a fake runner: the same text in company, cancellation, failures, stopping.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kimi_engine::{
    CacheScope, Constraint, EngineConfig, EngineFailure, EngineHandle, EngineState, EngineThread, FakeRunner,
    FinishReason, Finished, GenerateRequest, GenerationStream, ModelRunner, NewSequence, RunnerError,
    Sampling, SchedulerConfig, Speculation, Standing, StepBatch, StepOutput, SubmitError, TokenEvent, start,
};
use kimi_tokens::{ContentHash, EncodedPrompt, Medium, PATCH_BYTES, PatchGrid, PromptMedium, TokenId};

const CONFIG: EngineConfig = EngineConfig {
    scheduler: SchedulerConfig {
        block_size: 4,
        block_count: 64,
        max_batch_tokens: 24,
        max_sequences: 8,
        max_context: 128,
        speculation: None,
    },
    max_waiting: 16,
};

fn engine(runner: FakeRunner) -> (EngineHandle, EngineThread) {
    start(CONFIG, Box::new(runner))
}

fn request(seed: u64, max_tokens: usize) -> GenerateRequest {
    let tokens: Vec<TokenId> = (0..5 + seed as u32 * 3 % 40).collect();
    GenerateRequest {
        prompt: tokens.into(),
        sampling: Sampling { seed, ..Sampling::greedy() },
        max_tokens,
        stop_tokens: vec![0],
        logprobs: None,
        prompt_logprobs: None,
        constraint: Constraint::default(),
        cache_scope: None,
        standing: Standing::default(),
    }
}

/// The request with an image of four places at a position, that anybody may reuse.
fn seeing(request: GenerateRequest, start: usize, image: u8) -> GenerateRequest {
    let grid = PatchGrid { frames: 1, height: 4, width: 4 };
    let pixels = vec![image; grid.patches() * PATCH_BYTES];
    let medium = Arc::new(Medium { grid, pixels, hash: ContentHash([image; 32]) });
    let media = vec![PromptMedium { positions: start..start + 4, medium }];
    let prompt = EncodedPrompt { media, ..request.prompt };
    GenerateRequest { prompt, cache_scope: Some(CacheScope([1; 32])), ..request }
}

#[test]
fn images_change_answers_and_are_cached_by_what_they_show() {
    let (engine, thread) = engine(FakeRunner::hashed(1_000));
    let answer = |start, image| {
        let request = seeing(GenerateRequest { stop_tokens: vec![], ..request(10, 20) }, start, image);
        match read(&mut engine.generate(request).unwrap()) {
            (tokens, TokenEvent::Finished(finished)) => (tokens, finished.cached_tokens),
            (_, last) => panic!("{last:?}"),
        }
    };
    let (first, cached) = answer(9, 1);
    assert_eq!(cached, 0);
    assert_eq!(answer(9, 1), (first.clone(), 32), "35 tokens in blocks of four, the last token's left out");
    for (start, image, shared) in [(9, 2, 8), (10, 1, 8), (20, 1, 8)] {
        let (other, cached) = answer(start, image);
        assert!(other != first && cached == shared, "{start} {image}: {cached}");
    }
    engine.drain();
    thread.join().unwrap();
}

/// A runner that computes text alone.
struct Blind(FakeRunner);

impl ModelRunner for Blind {
    fn submit(&mut self, batch: Arc<StepBatch>) -> Result<(), RunnerError> {
        self.0.submit(batch)
    }

    fn collect(&mut self) -> Result<StepOutput, RunnerError> {
        self.0.collect()
    }
}

#[test]
fn images_that_cannot_be_computed_are_refused_at_once() {
    let (blind, _blind) = start(CONFIG, Box::new(Blind(FakeRunner::hashed(9))));
    let (engine, _thread) = engine(FakeRunner::hashed(9));
    assert!(engine.takes_media() && !blind.takes_media());
    let refused =
        |engine: &EngineHandle, change: &dyn Fn(&mut Medium, &mut std::ops::Range<usize>), why: &str| {
            let mut request = seeing(request(10, 1), 9, 1);
            let PromptMedium { positions, medium } = &mut request.prompt.media[0];
            change(Arc::make_mut(medium), positions);
            let error = engine.generate(request).unwrap_err();
            assert!(matches!(error, SubmitError::Media(_)) && error.to_string().contains(why), "{error}");
        };
    refused(&blind, &|_, _| (), "takes no images");
    refused(&engine, &|_, positions| *positions = 33..37, "outside");
    refused(&engine, &|_, positions| positions.end += 1, "more or fewer places");
    refused(&engine, &|medium, _| medium.pixels.truncate(9), "more or fewer pixels");
    refused(&engine, &|medium, _| medium.grid.frames = 5, "too many");
    refused(&engine, &|medium, _| (medium.grid.height, medium.grid.width) = (1, 16), "even numbers");
}

/// Reads a stream to its end: the tokens and the last event, after which nothing comes.
fn read(stream: &mut GenerationStream) -> (Vec<TokenId>, TokenEvent) {
    let mut tokens = Vec::new();
    loop {
        match stream.blocking_next().expect("a stream ends with Finished or Failed") {
            TokenEvent::Token(token) => tokens.push(token.id),
            last => {
                assert_eq!(stream.blocking_next(), None);
                return (tokens, last);
            }
        }
    }
}

/// Waits, a limited time, for something another thread does.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::yield_now();
    }
}

/// A runner that finishes a step only when the test allows it, and reports how many sequences each step has.
struct Gated {
    inner: FakeRunner,
    allowed: mpsc::Receiver<()>,
    reports: mpsc::Sender<usize>,
}

impl ModelRunner for Gated {
    fn submit(&mut self, batch: Arc<StepBatch>) -> Result<(), RunnerError> {
        let _ = self.reports.send(batch.plan.entries.len());
        self.inner.submit(batch)
    }

    fn collect(&mut self) -> Result<StepOutput, RunnerError> {
        let _ = self.allowed.recv();
        self.inner.collect()
    }
}

/// The test's side of [`Gated`]. Dropping it lets every step pass.
struct Gate {
    allow: mpsc::Sender<()>,
    steps: mpsc::Receiver<usize>,
}

impl Gate {
    /// Waits until a step is being computed and says how many sequences are in it.
    fn step_begins(&self) -> usize {
        self.steps.recv().expect("the engine runs another step")
    }

    fn let_it_end(&self) {
        self.allow.send(()).expect("the engine waits for the gate");
    }
}

fn gated(config: EngineConfig, inner: FakeRunner) -> (EngineHandle, EngineThread, Gate) {
    let (allow, allowed) = mpsc::channel();
    let (reports, steps) = mpsc::channel();
    let (engine, thread) = start(config, Box::new(Gated { inner, allowed, reports }));
    (engine, thread, Gate { allow, steps })
}

#[test]
fn sixteen_streams_say_what_each_says_alone() {
    let (alone, _thread) = engine(FakeRunner::hashed(40));
    let expected: Vec<_> =
        (0..16).map(|seed| read(&mut alone.generate(request(seed, 60)).unwrap())).collect();
    let stopped =
        |end: &TokenEvent| matches!(end, TokenEvent::Finished(Finished { reason: FinishReason::Stop, .. }));
    assert!(expected.iter().any(|(_, end)| stopped(end)) && !expected.iter().all(|(_, end)| stopped(end)));

    let (shared, _thread, gate) = gated(CONFIG, FakeRunner::hashed(40));
    let mut streams: Vec<_> = (0..16).map(|seed| shared.generate(request(seed, 60)).unwrap()).collect();
    drop(gate);
    let got: Vec<_> = streams.iter_mut().map(read).collect();
    assert_eq!(got, expected);
    assert!(shared.load().preemptions > 0, "the cache was meant to be too small for all of them");
}

#[test]
fn drafts_change_neither_tokens_nor_ends() {
    let speculation = Some(Speculation { max_draft: 5, max_rows: 16, eager: true });
    let drafting = EngineConfig { scheduler: SchedulerConfig { speculation, ..CONFIG.scheduler }, ..CONFIG };
    let answer = |new: &NewSequence| {
        let seed = new.sampling.seed as u32;
        // Says the same again and again, now and then something else; some stop, and one fails on the way.
        let tokens = (1..90).map(|index| 1 + (index % (2 + seed % 5)) + 7 * u32::from(index % 13 == seed));
        tokens.chain([0]).collect()
    };
    let runner = || FakeRunner::answering(answer).with_non_finite(3, 17);
    let read_all = |engine: EngineHandle, gate: Gate| {
        let streams: Vec<_> =
            (0..12).map(|seed| engine.generate(request(seed, 80 + seed as usize)).unwrap()).collect();
        drop(gate);
        let texts: Vec<_> = streams.into_iter().map(|mut stream| read(&mut stream)).collect();
        (texts, engine)
    };
    let (plain, _thread, gate) = gated(CONFIG, runner());
    let (expected, _) = read_all(plain, gate);
    let (drafting, _thread, gate) = gated(drafting, runner());
    let (got, drafting) = read_all(drafting, gate);
    assert_eq!(got, expected);
    let load = drafting.load();
    assert!(load.accepted_tokens > 100 && load.accepted_tokens < load.draft_tokens, "{load:?}");
    eventually("all blocks are free", || drafting.load().blocks_used == 0);
}

#[test]
fn usage_counts_the_stop_token_and_the_limit_is_the_context() {
    let (engine, _thread) = engine(FakeRunner::scripted(vec![vec![5, 6, 0], vec![5]]));
    let finished = |reason, prompt_tokens, completion_tokens| {
        TokenEvent::Finished(Finished { reason, prompt_tokens, cached_tokens: 0, completion_tokens })
    };
    let (tokens, end) = read(&mut engine.generate(request(0, 60)).unwrap());
    assert_eq!((tokens, end), (vec![5, 6, 0], finished(FinishReason::Stop, 5, 3)));
    let (tokens, end) = read(&mut engine.generate(request(0, 1_000)).unwrap());
    assert_eq!((tokens.len(), end), (123, finished(FinishReason::Length, 5, 123)));
}

#[test]
fn refusals_are_immediate_and_say_why() {
    let (engine, thread) = engine(FakeRunner::hashed(2));
    let with_prompt = |tokens: Vec<TokenId>| GenerateRequest { prompt: tokens.into(), ..request(0, 1) };
    assert_eq!(engine.limits().max_prompt_tokens, 127);
    assert_eq!(engine.generate(with_prompt(vec![])).unwrap_err(), SubmitError::Empty);
    assert_eq!(
        engine.generate(with_prompt(vec![1; 128])).unwrap_err(),
        SubmitError::TooLong { prompt_tokens: 128, limit: 127 }
    );
    read(&mut engine.generate(with_prompt(vec![1; 127])).unwrap());
    engine.drain();
    assert_eq!(engine.generate(request(0, 1)).unwrap_err(), SubmitError::Stopping);
    thread.join().unwrap();
}

#[test]
fn a_dropped_stream_is_gone_before_the_next_step() {
    let (engine, _thread, gate) = gated(CONFIG, FakeRunner::hashed(1));
    let endless = || GenerateRequest { stop_tokens: vec![], ..request(0, 100) };
    let kept = engine.generate(endless()).unwrap();
    assert_eq!(gate.step_begins(), 1);
    let dropped = engine.generate(endless()).unwrap();
    gate.let_it_end();
    assert_eq!(gate.step_begins(), 2);
    drop(dropped); // while the step runs
    gate.let_it_end();
    assert_eq!(gate.step_begins(), 1, "the next step is without it");
    drop(kept);
    gate.let_it_end();
    eventually("the cache is empty", || engine.load().blocks_used == 0);
    assert_eq!(gate.steps.try_recv(), Err(mpsc::TryRecvError::Empty), "idle: no more steps");
}

#[test]
fn a_full_queue_is_busy_until_somebody_leaves() {
    let config =
        EngineConfig { scheduler: SchedulerConfig { max_sequences: 1, ..CONFIG.scheduler }, max_waiting: 2 };
    let (engine, _thread, gate) = gated(config, FakeRunner::hashed(1));
    let first = engine.generate(request(0, 50)).unwrap();
    let _second = engine.generate(request(0, 50)).unwrap();
    let _third = engine.generate(request(0, 50)).unwrap();
    gate.step_begins();
    let refused = engine.generate(request(0, 50)).unwrap_err();
    assert!(matches!(refused, SubmitError::Busy { queued: 2, retry_after } if retry_after.as_secs() >= 1));
    drop(first);
    gate.let_it_end();
    gate.step_begins();
    assert!(engine.generate(request(0, 50)).is_ok(), "the place of the first is free again");
}

#[test]
fn non_finite_logits_fail_one_request() {
    let (engine, _thread) = engine(FakeRunner::hashed(1_000).with_non_finite(1, 3));
    let mut streams: Vec<_> = (0..3).map(|seed| engine.generate(request(seed, 10)).unwrap()).collect();
    let ends: Vec<_> = streams.iter_mut().map(read).map(|(tokens, end)| (tokens.len(), end)).collect();
    assert_eq!(ends[1], (3, TokenEvent::Failed(EngineFailure::NonFiniteLogits)));
    for (tokens, end) in [&ends[0], &ends[2]] {
        assert!(matches!(end, TokenEvent::Finished(_)), "{tokens} tokens, then {end:?}");
    }
    assert_eq!(engine.state(), EngineState::Serving);
    eventually("all blocks are free", || engine.load().blocks_used == 0);
}

#[test]
fn a_failed_step_fails_everybody_and_ends_the_engine() {
    let (engine, thread, gate) = gated(CONFIG, FakeRunner::hashed(1_000).with_fatal_step(20, "device lost"));
    let mut streams: Vec<_> = (0..12).map(|seed| engine.generate(request(seed, 100)).unwrap()).collect();
    drop(gate);
    for stream in &mut streams {
        assert_eq!(read(stream).1, TokenEvent::Failed(EngineFailure::Engine("device lost".into())));
    }
    assert_eq!(thread.join().unwrap_err().0, "device lost");
    assert_eq!(engine.state(), EngineState::Failed("device lost".into()));
    assert_eq!(engine.generate(request(0, 1)).unwrap_err(), SubmitError::Stopping);
}

/// Breaks the contract in a way of the test's choosing.
struct Broken(fn() -> StepOutput);

impl ModelRunner for Broken {
    fn submit(&mut self, _: Arc<StepBatch>) -> Result<(), RunnerError> {
        Ok(())
    }

    fn collect(&mut self) -> Result<StepOutput, RunnerError> {
        Ok(self.0())
    }
}

#[test]
fn a_runner_that_panics_or_answers_nothing_leaves_no_stream_open() {
    let panics = Broken(|| panic!("index out of bounds"));
    let answers_nothing = Broken(StepOutput::default);
    let cases = [
        (panics, "the engine thread panicked: index out of bounds"),
        (answers_nothing, "the runner was asked to sample sequences [0] and answered for []"),
    ];
    for (runner, message) in cases {
        let (engine, thread) = start(CONFIG, Box::new(runner));
        let (tokens, end) = read(&mut engine.generate(request(0, 9)).unwrap());
        assert_eq!((tokens.len(), end), (0, TokenEvent::Failed(EngineFailure::Engine(message.into()))));
        assert_eq!(thread.join().unwrap_err().0, message);
    }
}

#[test]
fn drain_finishes_what_was_accepted() {
    let (engine, thread, gate) = gated(CONFIG, FakeRunner::hashed(1_000));
    let mut streams: Vec<_> = (0..12).map(|seed| engine.generate(request(seed, 30)).unwrap()).collect();
    gate.step_begins();
    engine.drain();
    assert_eq!(engine.state(), EngineState::Draining);
    assert_eq!(engine.generate(request(0, 1)).unwrap_err(), SubmitError::Stopping);
    drop(gate);
    for stream in &mut streams {
        assert!(matches!(read(stream).1, TokenEvent::Finished(_)));
    }
    thread.join().unwrap();
    assert_eq!(engine.state(), EngineState::Ended);
}

#[test]
fn abort_fails_what_was_accepted() {
    let (engine, thread, gate) = gated(CONFIG, FakeRunner::hashed(1_000));
    let mut streams: Vec<_> = (0..12).map(|seed| engine.generate(request(seed, 100)).unwrap()).collect();
    gate.step_begins();
    engine.abort();
    drop(gate);
    for stream in &mut streams {
        let (tokens, end) = read(stream);
        assert!(tokens.len() <= 1, "only the step that ran is sent");
        assert!(matches!(end, TokenEvent::Failed(EngineFailure::Engine(_))));
    }
    thread.join().unwrap();
}

#[test]
fn an_abort_is_heard_while_draining() {
    let (engine, thread, gate) = gated(CONFIG, FakeRunner::hashed(1_000));
    let mut stream = engine.generate(request(0, 100)).unwrap();
    gate.step_begins();
    engine.drain();
    gate.let_it_end();
    gate.step_begins();
    engine.abort();
    drop(gate);
    let (tokens, end) = read(&mut stream);
    assert!(tokens.len() <= 2, "{} tokens after the abort", tokens.len());
    assert!(matches!(end, TokenEvent::Failed(EngineFailure::Engine(_))));
    thread.join().unwrap();
}

#[test]
fn dropping_every_handle_ends_the_thread() {
    let (engine, thread) = engine(FakeRunner::hashed(1_000));
    let mut stream = engine.generate(request(0, 30)).unwrap();
    drop(engine);
    assert!(matches!(read(&mut stream).1, TokenEvent::Finished(_)));
    thread.join().unwrap();
}

#[tokio::test]
async fn the_end_can_be_awaited_beside_the_streams() {
    let (engine, thread) = engine(FakeRunner::hashed(1_000).with_fatal_step(5, "device lost"));
    let mut stream = engine.generate(request(0, 100)).unwrap();
    assert_eq!(thread.ended().await.unwrap_err().0, "device lost");
    assert_eq!(thread.ended().await.unwrap_err().0, "device lost", "it may be asked again");
    let mut last = None;
    while let Some(event) = stream.next().await {
        last = Some(event);
    }
    assert_eq!(last, Some(TokenEvent::Failed(EngineFailure::Engine("device lost".into()))));
}
