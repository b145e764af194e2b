//! Facts told early in conversations of up to 8,000 tokens, asked of kimi-nano: the engine must say what transformers says,
//! wherever the fact is and however long the conversation, also where the model itself no longer finds it. So whoever reads
//! garbage in a long answer knows that it is not the cache's, the attention's or the positions' fault.
//! `scripts/golden/needles.py` wrote the reference.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{fs, path::PathBuf};

use kimi_engine::{CacheScope, EngineHandle, GenerateRequest, SampledToken, TokenEvent};
use kimi_runner::{Activations, CacheDtype, RunnerConfig};
use kimi_tokens::TokenId;
use serde::Deserialize;

const MAX_CONTEXT: usize = 8192;
/// kimi-nano's `<|im_end|>`.
const END: TokenId = 1_794;

#[derive(Deserialize)]
struct Golden {
    haystack: Vec<TokenId>,
    cases: Vec<Case>,
}

/// One question and its answer; the fields are explained where they are written.
#[derive(Deserialize)]
struct Case {
    tokens: usize,
    depth: f64,
    before: usize,
    until: usize,
    needle: Vec<TokenId>,
    question: Vec<TokenId>,
    answer: Vec<TokenId>,
    /// For each token of the answer, the most likely ones and their log probabilities.
    top: Vec<Vec<(TokenId, f32)>>,
    found: bool,
}

impl Case {
    fn prompt(&self, haystack: &[TokenId]) -> Vec<TokenId> {
        let parts =
            [&haystack[..self.before], &self.needle, &haystack[self.before..self.until], &self.question];
        parts.concat()
    }
}

fn models() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

fn golden() -> Golden {
    serde_json::from_slice(&fs::read(models().join("golden/kimi-nano-needles.json")).unwrap()).unwrap()
}

fn engine(cache_dtype: CacheDtype, activations: Activations) -> EngineHandle {
    let config = RunnerConfig { cache_dtype, activations, ..support::exact(2, MAX_CONTEXT) };
    support::start(&support::checkpoint("kimi-nano"), &config, |scheduler| scheduler).0
}

fn ask(engine: &EngineHandle, prompt: Vec<TokenId>, max_tokens: usize) -> Vec<SampledToken> {
    let request = GenerateRequest {
        stop_tokens: vec![END],
        logprobs: Some(5),
        // What the conversations share is computed once.
        cache_scope: Some(CacheScope([1; 32])),
        ..support::greedy(prompt, max_tokens)
    };
    let mut stream = engine.generate(request).unwrap();
    let mut answer = Vec::new();
    while let Some(event) = stream.blocking_next() {
        match event {
            TokenEvent::Token(token) => answer.push(token),
            TokenEvent::Finished(_) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    answer
}

/// How near the reference's log probabilities must be, where they are at least `floor`: rounding moves what is unlikely most.
#[derive(Clone, Copy)]
struct Bound {
    floor: f32,
    tolerance: f32,
}

/// The largest distance between the log probabilities of `answer` and those of the reference, for tokens that both name.
fn distance(case: &Case, answer: &[SampledToken], floor: f32) -> f32 {
    let rows = case.top.iter().zip(answer);
    let distances = rows.flat_map(|(expected, token)| {
        let found = &token.logprobs.as_ref().unwrap().top;
        expected.iter().filter(|(_, expected)| *expected >= floor).filter_map(|(id, expected)| {
            let (_, found) = found.iter().find(|(other, _)| other == id)?;
            Some((found - expected).abs())
        })
    });
    distances.fold(0.0, f32::max)
}

/// Asks the cases that `choose` takes.
fn check(cache_dtype: CacheDtype, activations: Activations, bound: Bound, choose: impl Fn(&Case) -> bool) {
    let golden = golden();
    let engine = engine(cache_dtype, activations);
    let (mut asked, mut wrong) = (0, Vec::new());
    // The longest first, and those with the fact at the end before others: most of the rest is in the cache then.
    for case in golden.cases.iter().rev().filter(|case| choose(case)) {
        let answer = ask(&engine, case.prompt(&golden.haystack), case.answer.len() + 1);
        let ids: Vec<_> = answer.iter().map(|token| token.id).collect();
        let distance = distance(case, &answer, bound.floor);
        let Case { tokens, depth, .. } = case;
        if ids != case.answer || distance > bound.tolerance {
            wrong.push(format!(
                "{tokens} tokens, depth {depth}: {distance}, {ids:?} instead of {:?}",
                case.answer
            ));
        }
        asked += 1;
    }
    assert!(asked > 5 && wrong.is_empty(), "{cache_dtype:?}, {activations:?}: {wrong:#?}");
}

#[test]
fn the_reference_covers_what_was_validated_and_more() {
    let cases = golden().cases;
    let near = |tokens: usize, depth: f64| {
        cases.iter().any(|case| case.tokens.abs_diff(tokens) < tokens / 4 && (case.depth - depth).abs() < 0.1)
    };
    for tokens in [1000, 2000, 4000, 6000, 8000] {
        assert!([0.0, 0.5, 1.0].iter().all(|&depth| near(tokens, depth)), "{tokens}");
    }
    // By no hair, so that rounding cannot tip an answer.
    let margins = cases.iter().flat_map(|case| &case.top).map(|top| top[0].1 - top[1].1);
    assert!(margins.fold(f32::INFINITY, f32::min) > 0.01);
}

#[test]
fn exact_numbers_are_the_references_at_every_length_and_depth() {
    check(CacheDtype::F32, Activations::F32, Bound { floor: f32::NEG_INFINITY, tolerance: 1e-3 }, |_| true);
}

/// As served without options.
#[test]
fn rounded_numbers_give_the_same_answers() {
    check(CacheDtype::Bf16, Activations::Rounded, Bound { floor: -3.0, tolerance: 0.1 }, |case| case.found);
}

#[test]
fn a_cache_in_8_bits_gives_the_same_answers() {
    check(CacheDtype::Fp8, Activations::Rounded, Bound { floor: -3.0, tolerance: 0.1 }, |case| {
        case.found && case.tokens < 4500
    });
}
