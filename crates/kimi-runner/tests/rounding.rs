//! What rounding costs: the bound on log probabilities that the README states, on kimi-nano's own conversations.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use kimi_engine::{GenerateRequest, TokenEvent, TokenLogprobs};
use kimi_runner::{Activations, CacheDtype, RunnerConfig};
use kimi_tokens::TokenId;

/// The log probability of likely tokens: at least one in twenty. Rounding moves what is unlikely more, and it is seldom chosen.
const LIKELY: f32 = -3.0;

/// For each position of kimi-nano's conversations, the next token's log probability, and the likeliest tokens.
fn scores(config: &RunnerConfig) -> Vec<TokenLogprobs> {
    let ids = include_str!("../../../models/golden/kimi-nano-chat.ids.json");
    let ids: Vec<TokenId> = serde_json::from_str(ids).unwrap();
    let (engine, _thread) = support::start(&support::checkpoint("kimi-nano"), config, |scheduler| scheduler);
    let request = GenerateRequest { prompt_logprobs: Some(2), ..support::greedy(ids, 1) };
    let mut stream = engine.generate(request).unwrap();
    let mut scores = Vec::new();
    while let Some(event) = stream.blocking_next() {
        match event {
            TokenEvent::Prompt(some) => scores.extend(some),
            TokenEvent::Failed(failure) => panic!("{failure}"),
            TokenEvent::Token(_) | TokenEvent::Finished(_) => {}
        }
    }
    scores
}

/// Mean and largest distance of log probabilities.
struct Bound {
    mean: f32,
    largest: f32,
}

fn assert_within(bound: &Bound, exact: &[TokenLogprobs], rounded: &[TokenLogprobs], what: &str) {
    assert_eq!(exact.len(), rounded.len());
    let mut distances = Vec::new();
    for (exact, rounded) in exact.iter().zip(rounded) {
        if exact.token > LIKELY {
            distances.push((exact.token - rounded.token).abs());
        }
        // Whoever was ahead by more than the bound is ahead still: greedy answers do not change but at a tie.
        if exact.top[0].1 - exact.top[1].1 > bound.largest {
            assert_eq!(exact.top[0].0, rounded.top[0].0, "{what}");
        }
    }
    let mean = distances.iter().sum::<f32>() / distances.len() as f32;
    let largest = distances.iter().copied().fold(0.0, f32::max);
    assert!(
        distances.len() > 400 && mean < bound.mean && largest < bound.largest,
        "{what}: {mean}, {largest}"
    );
}

#[test]
fn rounded_numbers_stay_within_the_stated_bound() {
    let exact = support::exact(1, 1024);
    let default =
        RunnerConfig { activations: Activations::Rounded, cache_dtype: CacheDtype::Bf16, ..exact.clone() };
    let int8 = RunnerConfig { dense_int8: true, ..default.clone() };
    let expected = scores(&exact);
    assert_within(&Bound { mean: 0.003, largest: 0.2 }, &expected, &scores(&default), "by default");
    assert_within(&Bound { mean: 0.003, largest: 0.2 }, &expected, &scores(&int8), "--dense int8");
}
