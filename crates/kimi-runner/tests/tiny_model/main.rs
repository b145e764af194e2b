//! Engine, runner and model together, on the tiny int4 checkpoint and what transformers computes for it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod images;

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use candle_core::{Device, Tensor};
use kimi_engine::{
    CacheScope, Constraint, EngineConfig, EngineFailure, EngineHandle, EngineThread, FinishReason,
    GenerateRequest, GenerationStream, SampledToken, Sampling, SchedulerConfig, Speculation, TokenEvent,
};
use kimi_k2::{Checkpoint, CheckpointFiles, KimiModel};
use kimi_runner::{
    Activations, CacheDtype, KvMemory, RankGroup, RunnerConfig, ScoreError, UNIFORM_ROWS, score,
    score_in_chunks,
};
use kimi_tokens::TokenId;

const STREAMS: usize = 16;
const BLOCK_SIZE: usize = 4;

fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../models/golden", name].iter().collect()
}

fn checkpoint() -> Checkpoint {
    Checkpoint::open(CheckpointFiles::Directory(golden("tiny-int4"))).unwrap()
}

fn model() -> KimiModel {
    KimiModel::load(&checkpoint(), &mut |_, _| {}).unwrap()
}

fn golden_tensors() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(golden("tiny-golden.safetensors"), &Device::Cpu).unwrap()
}

fn golden_ids() -> Vec<TokenId> {
    let ids = golden_tensors()["text.ids"].to_dtype(candle_core::DType::U32).unwrap();
    ids.flatten_all().unwrap().to_vec1().unwrap()
}

/// An engine whose steps are small enough to cut prompts and whose cache is too small for all streams at once, so that
/// chunked prefill and preemption take part.
fn engine() -> (EngineHandle, EngineThread) {
    engine_with(None, 1)
}

fn engine_with(speculation: Option<Speculation>, ranks: usize) -> (EngineHandle, EngineThread) {
    let max_context = 96;
    let config = RunnerConfig {
        block_size: BLOCK_SIZE,
        max_context,
        max_sequences: 5,
        kv_memory: KvMemory::Bytes(64 << 20),
        cache_dtype: CacheDtype::F32,
        max_batch_tokens: 4096,
        disk: None,
        activations: Activations::F32,
        dense_int8: false,
        ranks: ranks.try_into().unwrap(),
    };
    let runner = RankGroup::start(&config, &Arc::new(checkpoint()), |_, _| {}).unwrap();
    assert_eq!(runner.block_count(), 5 * max_context / BLOCK_SIZE, "limited by use, not by memory");
    let scheduler = SchedulerConfig {
        block_size: BLOCK_SIZE,
        block_count: runner.block_count() * 2 / 5,
        max_batch_tokens: 40,
        max_sequences: STREAMS,
        max_context,
        speculation,
    };
    kimi_engine::start(EngineConfig { scheduler, max_waiting: STREAMS }, Box::new(runner))
}

/// Prompts of 3 to 63 tokens that share no beginning.
fn prompt(stream: usize) -> Vec<TokenId> {
    let ids = golden_ids();
    (0..3 + 4 * stream).map(|i| (ids[i % ids.len()] + 97 * stream as u32 + 13 * i as u32) % 1_792).collect()
}

fn request(stream: usize, sampling: Sampling) -> GenerateRequest {
    GenerateRequest {
        prompt: prompt(stream).into(),
        sampling,
        max_tokens: 24,
        stop_tokens: vec![],
        logprobs: Some(2),
        prompt_logprobs: None,
        constraint: Constraint::default(),
        cache_scope: None,
        standing: kimi_engine::Standing::default(),
    }
}

fn collect(mut stream: GenerationStream) -> Vec<SampledToken> {
    let mut tokens = Vec::new();
    loop {
        match stream.blocking_next() {
            Some(TokenEvent::Token(token)) => tokens.push(token),
            Some(TokenEvent::Finished(finished)) => {
                assert_eq!(finished.reason, FinishReason::Length);
                assert_eq!(finished.completion_tokens, tokens.len());
                return tokens;
            }
            other => panic!("unexpected end: {other:?}"),
        }
    }
}

/// As [`collect`], with how many prompt tokens came from the prefix cache.
fn collect_cached(mut stream: GenerationStream) -> (Vec<SampledToken>, usize) {
    let mut tokens = Vec::new();
    loop {
        match stream.blocking_next() {
            Some(TokenEvent::Token(token)) => tokens.push(token),
            Some(TokenEvent::Finished(finished)) => return (tokens, finished.cached_tokens),
            other => panic!("unexpected end: {other:?}"),
        }
    }
}

fn ids(tokens: &[SampledToken]) -> Vec<TokenId> {
    tokens.iter().map(|token| token.id).collect()
}

/// Sixteen requests at once say what each says alone, which is returned.
fn assert_company_changes_nothing(request: impl Fn(usize) -> GenerateRequest) -> Vec<Vec<SampledToken>> {
    let (engine, thread) = engine();
    let alone: Vec<_> = (0..STREAMS).map(|i| collect(engine.generate(request(i)).unwrap())).collect();
    assert_eq!(engine.load().preemptions, 0, "one stream fits");
    let streams: Vec<_> = (0..STREAMS).map(|i| engine.generate(request(i)).unwrap()).collect();
    let together: Vec<_> = streams.into_iter().map(collect).collect();
    assert!(engine.load().preemptions > 0, "the test is meant to include preemption");
    for (stream, (alone, together)) in alone.iter().zip(&together).enumerate() {
        assert_eq!(ids(together), ids(alone), "stream {stream}");
        let logprob = |token: &SampledToken| token.logprobs.as_ref().unwrap().token;
        for (a, b) in alone.iter().zip(together) {
            assert!((logprob(a) - logprob(b)).abs() < 2e-4, "stream {stream}: {a:?} or {b:?}");
        }
    }
    engine.drain();
    thread.join().unwrap();
    alone
}

/// So that another CPU's rounding cannot fail a test: whatever was chosen was not chosen by a hair.
fn assert_no_close_race(texts: &[Vec<SampledToken>]) {
    let margin = |token: &SampledToken| {
        let top = &token.logprobs.as_ref().unwrap().top;
        top[0].1 - top[1].1
    };
    let closest = texts.iter().flatten().map(margin).fold(f32::INFINITY, f32::min);
    assert!(closest > 1e-4, "the closest race is decided by {closest}; choose other prompts");
}

#[test]
fn greedy_streams_say_the_same_together_and_alone() {
    let texts = assert_company_changes_nothing(|stream| request(stream, Sampling::greedy()));
    assert_no_close_race(&texts);
}

#[test]
fn seeded_streams_say_the_same_together_and_alone() {
    let sampling = |stream: usize| Sampling {
        temperature: 0.8,
        top_p: 0.95,
        top_k: stream.is_multiple_of(2).then_some(40),
        min_p: 0.01,
        presence_penalty: 0.3,
        frequency_penalty: 0.2,
        repetition_penalty: if stream.is_multiple_of(3) { 1.2 } else { 1.0 },
        logit_bias: vec![(stream as u32, 1.0)],
        seed: stream as u64,
    };
    let _ = assert_company_changes_nothing(|stream| request(stream, sampling(stream)));
}

/// Greedy, seeded and with penalties.
fn repetitive(stream: usize) -> Sampling {
    Sampling {
        temperature: [0.0, 0.5, 0.2][stream % 3],
        top_p: 0.95,
        frequency_penalty: if stream % 4 == 3 { 0.1 } else { 0.0 },
        // Few tokens to choose from, so that a model of random weights repeats itself.
        logit_bias: (0..5).map(|token| (300 * token + stream as u32, 20.0)).collect(),
        seed: stream as u64,
        ..Sampling::greedy()
    }
}

/// With drafts, requests are answered as without, to the last bit of every log probability.
fn assert_drafts_change_no_bit(request: impl Fn(usize) -> GenerateRequest) {
    let speculation = Speculation { max_draft: 8, max_rows: UNIFORM_ROWS, eager: true };
    let texts = [None, Some(speculation)].map(|speculation| {
        let (engine, thread) = engine_with(speculation, 1);
        let text = |stream: usize| {
            let bits = |token: SampledToken| {
                let logprobs = token.logprobs.unwrap();
                let top = logprobs.top.iter().map(|(id, logprob)| (*id, logprob.to_bits()));
                (token.id, logprobs.token.to_bits(), top.collect::<Vec<_>>())
            };
            collect(engine.generate(request(stream)).unwrap()).into_iter().map(bits).collect::<Vec<_>>()
        };
        let texts: Vec<_> = (0..STREAMS).map(text).collect();
        let load = engine.load();
        engine.drain();
        thread.join().unwrap();
        (texts, load)
    });
    let [(plain, _), (speculative, load)] = texts;
    assert_eq!(plain, speculative);
    assert!(load.draft_tokens > 50 && load.accepted_tokens > 10, "{load:?}");
    assert!(load.accepted_tokens < load.draft_tokens, "some were meant to be wrong: {load:?}");
}

#[test]
fn drafts_change_no_bit() {
    assert_drafts_change_no_bit(|stream| request(stream, repetitive(stream)));
}

#[test]
fn a_cached_prefix_gives_the_text_of_a_computed_one() {
    let (engine, thread) = engine();
    let scoped = |cut: usize, scope| {
        let mut request = request(STREAMS - 1, Sampling::greedy());
        request.prompt.tokens.truncate(cut);
        request.cache_scope = scope;
        request
    };
    let scope = Some(CacheScope([7; 32]));
    let length = prompt(STREAMS - 1).len();
    let computed: Vec<_> =
        [length, 30, 41].map(|cut| collect(engine.generate(scoped(cut, None)).unwrap())).to_vec();

    let (first, cached) = collect_cached(engine.generate(scoped(length, scope)).unwrap());
    assert_eq!((ids(&first), cached), (ids(&computed[0]), 0), "nothing was there");
    let streams = [length, 30, 41].map(|cut| engine.generate(scoped(cut, scope)).unwrap());
    let blocks = |tokens: usize| (tokens - 1) / BLOCK_SIZE * BLOCK_SIZE;
    for ((stream, computed), cut) in streams.into_iter().zip(&computed).zip([length, 30, 41]) {
        let (tokens, cached) = collect_cached(stream);
        assert_eq!(cached, blocks(cut), "every full block but the last token's");
        assert_eq!(ids(&tokens), ids(computed));
        for (a, b) in tokens.iter().zip(computed) {
            let logprob = |token: &SampledToken| token.logprobs.as_ref().unwrap().token;
            assert!((logprob(a) - logprob(b)).abs() < 2e-4, "{a:?} or {b:?}");
        }
    }
    let (_, elsewhere) = collect_cached(engine.generate(scoped(length, Some(CacheScope([8; 32])))).unwrap());
    assert_eq!(elsewhere, 0, "another scope finds nothing");
    engine.drain();
    thread.join().unwrap();
}

#[test]
fn scores_are_the_log_softmax_of_the_golden_logits() {
    let ids = golden_ids();
    let logits: Vec<Vec<f32>> = golden_tensors()["text.logits"].to_vec2().unwrap();
    let model = model();
    for chunk in [1, 5, 128] {
        let scores: Vec<_> = score_in_chunks(&model, &ids, 3, chunk).unwrap().map(Result::unwrap).collect();
        assert_eq!(scores.len(), ids.len());
        assert_eq!((scores[0].token, scores[0].logprob, scores[0].top.len()), (ids[0], None, 0));
        for (score, row) in scores[1..].iter().zip(&logits) {
            assert_eq!(score.token, ids[score.position]);
            let normalizer = row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            let expected = |token: TokenId| (f64::from(row[token as usize]) - normalizer) as f32;
            assert!(
                (score.logprob.unwrap() - expected(score.token)).abs() < 2e-4,
                "chunk {chunk}: {score:?}"
            );
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(row[score.top[0].0 as usize] > best - 2e-4, "chunk {chunk}: {score:?}");
            for pair in score.top.windows(2) {
                assert!(pair[0].1 >= pair[1].1, "descending: {score:?}");
            }
            for &(token, logprob) in &score.top {
                assert!((logprob - expected(token)).abs() < 2e-4, "chunk {chunk}: {score:?}");
            }
        }
    }
}

#[test]
fn the_engine_reports_the_log_probabilities_that_scoring_gives() {
    let (engine, _thread) = engine();
    let prompt = prompt(2);
    let answer = collect(engine.generate(request(2, Sampling::greedy())).unwrap());
    let text: Vec<TokenId> = prompt.iter().copied().chain(ids(&answer)).collect();
    let model = model();
    let scores = score(&model, &text, 2).unwrap().map(Result::unwrap).skip(prompt.len());
    for (token, score) in answer.iter().zip(scores) {
        let reported = token.logprobs.as_ref().unwrap();
        assert_eq!(token.id, score.token);
        assert!((reported.token - score.logprob.unwrap()).abs() < 2e-4);
        assert_eq!(reported.top[0].0, token.id, "greedy");
        assert!((reported.top[1].1 - score.top[1].1).abs() < 2e-4);
    }
}

#[test]
fn the_engine_scores_prompts_as_scoring_does_whatever_is_cached() {
    let (engine, _thread) = engine();
    let prompt: Vec<TokenId> = prompt(2).iter().copied().cycle().take(90).collect();
    let model = model();
    let expected: Vec<_> = score(&model, &prompt, 2).unwrap().map(Result::unwrap).skip(1).collect();
    for _ in 0..2 {
        let mut asked = request(2, Sampling::greedy());
        asked.prompt.tokens.clone_from(&prompt);
        asked.prompt_logprobs = Some(2);
        // Its own blocks could be found the second time, and must not be.
        asked.cache_scope = Some(CacheScope([1; 32]));
        let mut stream = engine.generate(asked).unwrap();
        let mut scores = Vec::new();
        let finished = loop {
            match stream.blocking_next().unwrap() {
                TokenEvent::Prompt(some) => scores.extend(some),
                TokenEvent::Token(_) => assert_eq!(scores.len(), expected.len(), "the prompt comes first"),
                TokenEvent::Finished(finished) => break finished,
                TokenEvent::Failed(failure) => panic!("{failure}"),
            }
        };
        assert_eq!(finished.cached_tokens, 0);
        for (score, expected) in scores.iter().zip(&expected) {
            assert!((score.token - expected.logprob.unwrap()).abs() < 2e-4);
            assert_eq!(score.top.len(), 2);
            assert!((score.top[0].1 - expected.top[0].1).abs() < 2e-4);
        }
    }
}

#[test]
fn a_step_that_cannot_be_computed_ends_the_engine_and_no_stream_waits() {
    let (engine, thread) = engine();
    let mut other = engine.generate(request(1, Sampling::greedy())).unwrap();
    let mut impossible = request(0, Sampling::greedy());
    impossible.prompt.tokens[1] = 2_048; // one past the vocabulary
    let mut impossible = engine.generate(impossible).unwrap();
    for stream in [&mut other, &mut impossible] {
        let last = std::iter::from_fn(|| stream.blocking_next()).last().unwrap();
        assert!(
            matches!(&last, TokenEvent::Failed(EngineFailure::Engine(why)) if why.contains("2048")),
            "{last:?}"
        );
    }
    assert!(thread.join().unwrap_err().0.contains("2048"));
}

#[test]
fn unknown_tokens_are_refused_and_short_texts_are_fine() {
    let model = model();
    let error = score(&model, &[1, 2_048], 0).err().unwrap();
    assert!(matches!(error, ScoreError::UnknownToken { token: 2_048, position: 1, vocabulary: 2_048 }));
    assert_eq!(score(&model, &[], 0).unwrap().count(), 0);
    let one: Vec<_> = score(&model, &[5], 0).unwrap().map(Result::unwrap).collect();
    assert_eq!(serde_json::to_string(&one).unwrap(), r#"[{"position":0,"token":5,"logprob":null,"top":[]}]"#);
}
