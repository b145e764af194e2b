//! Ranks that share a model say what one rank says that holds it alone.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;

use kimi_engine::{GenerateRequest, SampledToken, TokenEvent};
use kimi_k2::Checkpoint;
use kimi_runner::{Activations, CacheDtype, DiskTierConfig, RankGroup, RunnerConfig, StartError};
use kimi_tokens::TokenId;
use support::checkpoint;

const CONTEXT: usize = 160;
/// Log probabilities below this are all the same.
const IMPOSSIBLE: f32 = -10.0;

fn config(ranks: usize) -> RunnerConfig {
    let exact = support::exact(8, CONTEXT);
    RunnerConfig { block_size: 4, max_batch_tokens: 64, ranks: ranks.try_into().unwrap(), ..exact }
}

/// What the model makes of a prompt, and what it says then.
#[derive(Debug)]
struct Answer {
    prompt: Vec<f32>,
    tokens: Vec<SampledToken>,
}

/// Eight prompts of 5 to 110 tokens.
fn prompts(model: &Checkpoint) -> Vec<Vec<TokenId>> {
    let vocabulary = model.config().vocab_size;
    let prompt = |stream: usize| {
        (0..5 + 15 * stream).map(move |i| ((i * i + 31 * i * stream + 7) % (vocabulary - 300)) as u32)
    };
    (0..8).map(|stream| prompt(stream).collect()).collect()
}

/// Parts of conversations in kimi-nano's own tokens.
fn conversations() -> Vec<Vec<TokenId>> {
    let ids = include_str!("../../../models/golden/kimi-nano-chat.ids.json");
    let ids: Vec<TokenId> = serde_json::from_str(ids).unwrap();
    (0..8).map(|stream| ids[..5 + 15 * stream].to_vec()).collect()
}

/// Answers to all prompts at once: some are cut, some are computed beside others' answers.
fn answers(model: &Arc<Checkpoint>, config: &RunnerConfig, prompts: &[Vec<TokenId>]) -> Vec<Answer> {
    let (engine, thread) = support::start(model, config, |scheduler| scheduler);
    let ask = |prompt: &Vec<TokenId>| {
        let request = support::greedy(prompt.clone(), 24);
        let request = GenerateRequest { logprobs: Some(2), prompt_logprobs: Some(0), ..request };
        engine.generate(request).unwrap()
    };
    let streams: Vec<_> = prompts.iter().map(ask).collect();
    let collect = |mut stream: kimi_engine::GenerationStream| {
        let mut answer = Answer { prompt: vec![], tokens: vec![] };
        loop {
            match stream.blocking_next().unwrap() {
                TokenEvent::Prompt(some) => answer.prompt.extend(some.iter().map(|score| score.token)),
                TokenEvent::Token(token) => answer.tokens.push(token),
                TokenEvent::Finished(_) => return answer,
                TokenEvent::Failed(failure) => panic!("{failure}"),
            }
        }
    };
    let answers = streams.into_iter().map(collect).collect();
    engine.drain();
    thread.join().unwrap();
    answers
}

/// Fails unless the same is said with log probabilities that differ by `tolerance` at most. Where the two most likely tokens are
/// closer than that, either may follow, and what comes then is not compared.
fn assert_alike(alone: &Answer, shared: &Answer, tolerance: f32, what: &str) {
    assert_eq!(alone.prompt.len(), shared.prompt.len());
    for (a, b) in alone.prompt.iter().zip(&shared.prompt) {
        // How impossible something is says nothing.
        let near = (a.max(IMPOSSIBLE) - b.max(IMPOSSIBLE)).abs() < tolerance;
        assert!(near && a.is_finite() && b.is_finite(), "{what}: {a} and {b}");
    }
    for (a, b) in alone.tokens.iter().zip(&shared.tokens) {
        let [of_a, of_b] = [a, b].map(|token| token.logprobs.as_ref().unwrap());
        if of_a.top[0].1 - of_a.top[1].1 < tolerance {
            return;
        }
        assert_eq!(a.id, b.id, "{what}");
        assert!((of_a.token - of_b.token).abs() < tolerance, "{what}: {} and {}", of_a.token, of_b.token);
    }
    assert_eq!(alone.tokens.len(), shared.tokens.len(), "{what}");
}

/// `ranks` say what one says.
fn assert_ranks_agree(
    (name, prompts): (&str, &[Vec<TokenId>]),
    ranks: usize,
    tolerance: f32,
    with: impl Fn(RunnerConfig) -> RunnerConfig,
) {
    let model = checkpoint(name);
    let [alone, shared] = [1, ranks].map(|ranks| answers(&model, &with(config(ranks)), prompts));
    let tokens = alone.iter().map(|answer| answer.tokens.len()).sum::<usize>();
    assert_eq!(tokens, 24 * prompts.len());
    for (alone, shared) in alone.iter().zip(&shared) {
        assert_alike(alone, shared, tolerance, &format!("{name} with {ranks} ranks"));
    }
}

#[test]
fn ranks_together_say_what_one_says() {
    // Even and uneven shares of heads, of 16 experts in groups, of two shared experts, of inner sizes that are no blocks.
    let cases = [
        ("golden/tiny-int4", 2),
        ("golden/tiny-int4", 3),
        ("golden/tiny-int4", 4),
        ("golden/moonlight-bf16", 2),
        ("golden/moonlight-bf16", 3),
        ("golden/grouped-int4", 2),
    ];
    for (name, ranks) in cases {
        let prompts = prompts(&checkpoint(name));
        assert_ranks_agree((name, &prompts), ranks, 2e-4, |config| config);
    }
    assert_ranks_agree(("kimi-nano", &conversations()), 2, 2e-4, |config| config);
}

/// Sums in another order are rounded otherwise, and what is rounded to 8 bits afterwards may be another code. A rank's part of
/// a shared expert is no whole block of 128 columns in kimi-nano, so that it stays in bf16 where one rank's is in 8 bits.
#[test]
fn ranks_together_say_what_one_says_with_rounded_numbers() {
    let rounded = |config| RunnerConfig { activations: Activations::Rounded, ..config };
    let int8 = |config| RunnerConfig { dense_int8: true, cache_dtype: CacheDtype::Bf16, ..rounded(config) };
    for ranks in [2, 4] {
        assert_ranks_agree(("kimi-nano", &conversations()), ranks, 0.1, rounded);
        assert_ranks_agree(("kimi-nano", &conversations()), ranks, 0.3, int8);
    }
}

#[test]
fn what_cannot_be_shared_is_refused_at_start() {
    let refusal =
        |name, config: RunnerConfig| RankGroup::start(&config, &checkpoint(name), |_, _| {}).unwrap_err();
    let too_many = refusal("golden/tiny-int4", config(5)).to_string();
    assert_eq!(too_many, "5 ranks for 4 attention heads; at most 4 can share this model");
    // Its heads are smaller than the blocks that share a scale.
    let fp8 = refusal("golden/instruct-fp8", config(2)).to_string();
    assert!(fp8.contains("cannot be shared by so many ranks") && fp8.contains("128"), "{fp8}");
    let disk = DiskTierConfig { directory: std::env::temp_dir().join("unused"), max_bytes: 1 << 20 };
    let disk = RunnerConfig { disk: Some(disk), ..config(2) };
    assert!(matches!(refusal("golden/tiny-int4", disk), StartError::TierOfRanks));
}
