use kimi_engine::{Constraint, NewSequence};
use kimi_scheduler::SequenceId;
use proptest::{prelude::*, test_runner::RngSeed};

use super::*;

fn sampler(sampling: Sampling) -> SequenceSampler {
    sampler_for(sampling, &[], None)
}

fn sampler_for(sampling: Sampling, prompt: &[TokenId], logprobs: Option<usize>) -> SequenceSampler {
    SequenceSampler::new(&NewSequence {
        id: SequenceId(1),
        sampling,
        logprobs,
        prompt_logprobs: None,
        prompt: prompt.into(),
        media: vec![],
        constraint: Constraint::default(),
        max_tokens: usize::MAX,
        stop_tokens: Vec::new(),
    })
}

fn sampled(sampling: Sampling) -> Sampling {
    Sampling { temperature: 1.0, ..sampling }
}

/// A few ties, a wide range, sometimes impossible tokens.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![4 => -8.0_f32..8.0, 1 => Just(2.0), 1 => Just(f32::NEG_INFINITY)];
    prop::collection::vec(logit, 1..10)
        .prop_filter("something must be possible", |logits| logits.iter().any(|&x| x > f32::NEG_INFINITY))
}

fn sampling() -> impl Strategy<Value = Sampling> {
    (
        (0.2_f32..2.0, 0.05_f32..=1.0, prop::option::of(1_usize..12), prop_oneof![Just(0.0), 0.0_f32..0.5]),
        (-1.0_f32..1.0, -1.0_f32..1.0, prop_oneof![Just(1.0), 0.5_f32..2.0]),
        prop::collection::vec((0_u32..12, -3.0_f32..3.0), 0..3),
        any::<u64>(),
    )
        .prop_map(
            |((temperature, top_p, top_k, min_p), (presence, frequency, repetition), logit_bias, seed)| {
                Sampling {
                    temperature,
                    top_p,
                    top_k,
                    min_p,
                    presence_penalty: presence,
                    frequency_penalty: frequency,
                    repetition_penalty: repetition,
                    logit_bias,
                    seed,
                }
            },
        )
}

/// The probabilities that `Sampling` describes, worked out the slow way in f64.
fn reference(sampling: &Sampling, logits: &[f32], prompt: &[TokenId], output: &[TokenId]) -> Vec<f64> {
    let mut x: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    for (token, x) in x.iter_mut().enumerate() {
        let generated = output.iter().filter(|&&t| t as usize == token).count() as f64;
        if generated > 0.0 || prompt.contains(&(token as TokenId)) {
            let penalty = f64::from(sampling.repetition_penalty);
            *x = if *x > 0.0 { *x / penalty } else { *x * penalty };
        }
        if generated > 0.0 {
            *x -= f64::from(sampling.presence_penalty) + f64::from(sampling.frequency_penalty) * generated;
        }
        *x +=
            sampling.logit_bias.iter().filter(|b| b.0 as usize == token).map(|b| f64::from(b.1)).sum::<f64>();
    }
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut p: Vec<f64> = x.iter().map(|x| ((x - max) / f64::from(sampling.temperature)).exp()).collect();
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    for &dropped in order.iter().skip(sampling.top_k.unwrap_or(usize::MAX)) {
        p[dropped] = 0.0;
    }
    let wanted = p.iter().sum::<f64>() * f64::from(sampling.top_p);
    let mut mass = 0.0;
    for &token in &order {
        if mass >= wanted {
            p[token] = 0.0;
        }
        mass += p[token];
    }
    p.iter_mut().filter(|p| **p < f64::from(sampling.min_p)).for_each(|p| *p = 0.0);
    let total: f64 = p.iter().sum();
    p.into_iter().map(|p| p / total).collect()
}

proptest! {
    // A fixed seed: these are statistics, and a test must not fail once in a million runs.
    #![proptest_config(ProptestConfig { cases: 64, rng_seed: RngSeed::Fixed(20_260), ..ProptestConfig::default() })]

    /// 2,000 draws from one row follow the reference distribution; what it excludes is never drawn.
    #[test]
    fn draws_follow_the_documented_distribution(
        sampling in sampling(), logits in logits(), prompt in prop::collection::vec(0_u32..10, 0..4),
    ) {
        const DRAWS: usize = 2_000;
        let expected = reference(&sampling, &logits, &prompt, &[]);
        let mut state = sampler_for(sampling, &prompt, None);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..DRAWS {
            counts[state.sample(&mut logits.clone()).unwrap().id as usize] += 1.0;
            // The distribution under test is that of the first token.
            state.history.retain(|token, count| { *count = 0; prompt.contains(token) });
        }
        for (token, &p) in expected.iter().enumerate() {
            let (mean, deviation) = (p * DRAWS as f64, (p * (1.0 - p) * DRAWS as f64).sqrt());
            let off = f64::abs(counts[token] - mean);
            // A border token may fall on either side of a filter by rounding; such ties are rare and visible here.
            prop_assert!(off <= 5.5 * deviation + 3.0, "token {token}: {} draws, expected {mean}", counts[token]);
        }
    }

    /// Penalties count what was generated, in greedy mode too.
    #[test]
    fn greedy_takes_the_penalized_best(
        sampling in sampling(), logits in logits(), prompt in prop::collection::vec(0_u32..10, 0..4),
    ) {
        let mut state = sampler_for(Sampling { temperature: 0.0, ..sampling.clone() }, &prompt, None);
        let mut output = Vec::new();
        let unfiltered = Sampling { temperature: 1.0, top_p: 1.0, top_k: None, min_p: 0.0, ..sampling };
        for _ in 0..6 {
            let id = state.sample(&mut logits.clone()).unwrap().id;
            let p = reference(&unfiltered, &logits, &prompt, &output);
            let best = p.iter().copied().fold(0.0, f64::max);
            prop_assert!(p[id as usize] >= best * (1.0 - 1e-5), "{id} has {}, the best {best}", p[id as usize]);
            output.push(id);
        }
    }

    /// Greedy is the first largest logit whatever the filters say, and so is every sampler that keeps one token.
    #[test]
    fn filters_never_change_the_best_token(sampling in sampling(), logits in logits()) {
        let plain = Sampling {
            presence_penalty: 0.0, frequency_penalty: 0.0, repetition_penalty: 1.0, logit_bias: vec![], ..sampling
        };
        let best = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as TokenId;
        for only_best in [
            Sampling { temperature: 0.0, ..plain.clone() },
            Sampling { temperature: 1e-30, ..plain.clone() },
            Sampling { top_k: Some(1), temperature: 1.0, ..plain.clone() },
        ] {
            prop_assert_eq!(sampler(only_best).sample(&mut logits.clone()).unwrap().id, best);
        }
    }

    /// The same seed draws the same tokens, with other samplers at work in between, and reporting changes nothing.
    #[test]
    fn a_seed_fixes_the_text(
        sampling in sampling(), other in sampling(), rows in prop::collection::vec(logits(), 1..20),
    ) {
        let mut alone = sampler(sampling.clone());
        let mut in_company = sampler_for(sampling, &[], Some(3));
        let mut company = sampler(other);
        for row in rows {
            let expected = alone.sample(&mut row.clone()).unwrap().id;
            company.sample(&mut row.clone()).unwrap();
            prop_assert_eq!(in_company.sample(&mut row.clone()).unwrap().id, expected);
        }
    }
}

#[test]
fn different_seeds_differ() {
    let text = |seed| {
        let mut state = sampler(sampled(Sampling { seed, ..Sampling::greedy() }));
        (0..20).map(|_| state.sample(&mut [0.0; 50]).unwrap().id).collect::<Vec<_>>()
    };
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
}

#[test]
fn non_finite_rows_fail_and_are_never_a_token() {
    for sampling in [Sampling::greedy(), sampled(Sampling::greedy())] {
        for row in [
            vec![f32::NAN; 40],
            vec![f32::NEG_INFINITY; 40],
            (0..40).map(|i| if i == 33 { f32::NAN } else { 1.0 }).collect(),
            (0..40).map(|i| if i == 33 { f32::INFINITY } else { 1.0 }).collect(),
        ] {
            let result = sampler_for(sampling.clone(), &[], Some(2)).sample(&mut row.clone());
            assert_eq!(result, Err(EngineFailure::NonFiniteLogits), "{row:?}");
        }
    }
}

#[test]
fn a_failed_row_does_not_move_the_random_stream() {
    let sampling = sampled(Sampling { seed: 3, ..Sampling::greedy() });
    let (mut clean, mut shaken) = (sampler(sampling.clone()), sampler(sampling));
    shaken.sample(&mut [f32::NAN; 50]).unwrap_err();
    for _ in 0..10 {
        assert_eq!(clean.sample(&mut [0.0; 50]), shaken.sample(&mut [0.0; 50]));
    }
}

#[test]
fn logprobs_are_those_of_the_untouched_logits() {
    let row = [1.0_f32, 3.0, 2.0, 3.0, f32::NEG_INFINITY];
    let total: f32 = row.iter().map(|x| x.exp()).sum();
    let mut state = sampler_for(
        Sampling { temperature: 0.3, top_k: Some(1), logit_bias: vec![(0, 50.0)], ..Sampling::greedy() },
        &[],
        Some(3),
    );
    let token = state.sample(&mut row.clone()).unwrap();
    assert_eq!(token.id, 0, "the bias decides");
    let logprobs = token.logprobs.unwrap();
    let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
    assert!(close(logprobs.token, row[0] - total.ln()));
    assert_eq!(logprobs.top.iter().map(|top| top.0).collect::<Vec<_>>(), [1, 3, 2]);
    assert!(logprobs.top.iter().all(|&(token, logprob)| close(logprob, row[token as usize] - total.ln())));
}

#[test]
fn bias_and_prompt_tokens_outside_the_vocabulary_are_ignored() {
    let sampling = Sampling { repetition_penalty: 2.0, logit_bias: vec![(99, 5.0)], ..Sampling::greedy() };
    assert_eq!(sampler_for(sampling, &[77, 1], None).sample(&mut [0.0, 1.0, 0.9]).unwrap().id, 2);
}

/// `cargo test --release -p kimi-runner -- --ignored --nocapture sampler_speed`
#[test]
#[ignore = "prints timings; run it alone"]
fn sampler_speed() {
    const VOCABULARY: u32 = 163_840;
    const ROUNDS: u32 = 50;
    // A peaked row like a language model's, and a flat one like a random model's.
    let noise = |i: u32, scale: f32| {
        let mut x = i.wrapping_mul(0x9E37_79B9);
        let mut total = 0.0;
        for _ in 0..6 {
            x = (x ^ (x >> 15)).wrapping_mul(0x2C1B_3C6D);
            total += (x >> 8) as f32 / (1 << 23) as f32 - 1.0;
        }
        total * scale
    };
    let peaked: Vec<f32> =
        (0..VOCABULARY).map(|i| noise(i, 1.4) + if i % 9973 == 5 { 14.0 } else { 0.0 }).collect();
    let flat: Vec<f32> = (0..VOCABULARY).map(|i| noise(i, 0.05)).collect();
    let base = sampled(Sampling::greedy());
    let cases = [
        ("greedy", Sampling::greedy(), None),
        ("greedy, 20 logprobs", Sampling::greedy(), Some(20)),
        ("temperature", base.clone(), None),
        ("top_p 0.95", Sampling { top_p: 0.95, ..base.clone() }, None),
        ("top_k 50", Sampling { top_k: Some(50), ..base.clone() }, None),
        ("top_k 50 top_p 0.95", Sampling { top_k: Some(50), top_p: 0.95, ..base.clone() }, None),
        ("min_p 0.05", Sampling { min_p: 0.05, ..base.clone() }, None),
        ("all penalties, top_p", Sampling { frequency_penalty: 0.5, top_p: 0.95, ..base.clone() }, None),
    ];
    for (row_name, row) in [("peaked", &peaked), ("flat", &flat)] {
        for (name, sampling, logprobs) in &cases {
            let mut state = sampler_for(sampling.clone(), &(0..4000).collect::<Vec<_>>(), *logprobs);
            let mut scratch = row.clone();
            let mut spent = std::time::Duration::ZERO;
            for _ in 0..ROUNDS {
                scratch.copy_from_slice(row);
                let start = std::time::Instant::now();
                state.sample(&mut scratch).unwrap();
                spent += start.elapsed();
            }
            println!("{row_name:7} {name:22} {:6.3} ms", (spent / ROUNDS).as_secs_f64() * 1e3);
        }
    }
}
