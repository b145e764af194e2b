//! Drafts never change what is sampled: scheduler and samplers together over made-up logits, where runs of tokens come back
//! all the time, with every parameter that looks at earlier tokens.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use kimi_engine::{Constraint, GuideError, GuideSource, NewSequence, SampledToken, Sampling, TokenGuide};
use kimi_runner::SequenceSampler;
use kimi_scheduler::{
    CacheScope, Finished, Limits, Load, Sample, Scheduler, SchedulerConfig, SequenceId, SequenceRequest,
    SequenceUpdate, Speculation, Standing,
};
use kimi_tokens::TokenId;
use proptest::prelude::*;

const VOCABULARY: u32 = 5;
const STOP: TokenId = 4;

/// The "model": logits after some tokens depend on the last two.
fn logits(tokens: &[TokenId]) -> Vec<f32> {
    let seen = &tokens[tokens.len().saturating_sub(2)..];
    (0..VOCABULARY)
        .map(|token| {
            let mut hasher = DefaultHasher::new();
            (seen, token).hash(&mut hasher);
            (hasher.finish() % 1000) as f32 * 0.004 - if token == STOP { 2.0 } else { 0.0 }
        })
        .collect()
}

#[derive(Clone, Debug)]
struct Request {
    prompt: Vec<TokenId>,
    sampling: Sampling,
    limits: Limits,
    constraint: Constraint,
    logprobs: Option<usize>,
    scope: Option<CacheScope>,
}

/// Says no to a token that depends on all tokens so far, and ends the answer with [`STOP`] and not before, as a
/// grammar that closes in time does. It would notice a token that it was shown too much.
#[derive(Clone, Debug, Default)]
struct Moody {
    heard: Vec<TokenId>,
}

impl TokenGuide for Moody {
    fn restrict(&mut self, logits: &mut [f32], tokens_left: usize) -> Result<(), GuideError> {
        let mood = self
            .heard
            .iter()
            .fold(tokens_left as u32, |mood, token| mood.wrapping_mul(3).wrapping_add(*token))
            % STOP;
        logits[mood as usize] = f32::NEG_INFINITY;
        logits[STOP as usize] = f32::NEG_INFINITY;
        if self.heard.len() > 20 { Err(GuideError("too long".into())) } else { Ok(()) }
    }

    fn accept(&mut self, token: TokenId, tokens_left: usize) -> Result<TokenId, GuideError> {
        self.heard.push(token);
        Ok(if tokens_left == 1 { STOP } else { token })
    }
}

impl GuideSource for Moody {
    fn start(&self) -> Box<dyn TokenGuide> {
        Box::new(self.clone())
    }

    fn vocabulary_size(&self) -> usize {
        VOCABULARY as usize
    }
}

/// What a request got: its tokens, and how it ended unless it failed.
type Answer = (Vec<SampledToken>, Option<Finished>);

/// A step of a rank, with a cache that holds the tokens themselves.
struct Shadow {
    block_size: usize,
    slots: Vec<TokenId>,
    samplers: BTreeMap<SequenceId, SequenceSampler>,
}

impl Shadow {
    fn sampler(&mut self, id: SequenceId, request: &Request) -> &mut SequenceSampler {
        self.samplers.entry(id).or_insert_with(|| {
            SequenceSampler::new(&NewSequence {
                id,
                sampling: request.sampling.clone(),
                logprobs: request.logprobs,
                prompt_logprobs: None,
                prompt: request.prompt.as_slice().into(),
                media: vec![],
                constraint: request.constraint.clone(),
                max_tokens: request.limits.max_tokens,
                stop_tokens: request.limits.stop_tokens.clone(),
            })
        })
    }

    /// The first `end` tokens as a sequence finds them through its block table.
    fn context(&mut self, entry: &kimi_scheduler::PlanEntry) -> Vec<TokenId> {
        let slot = |position: usize| {
            entry.blocks[position / self.block_size].0 as usize * self.block_size + position % self.block_size
        };
        for (position, token) in (entry.start..).zip(&entry.tokens) {
            self.slots[slot(position)] = *token;
        }
        (0..entry.start + entry.tokens.len()).map(|position| self.slots[slot(position)]).collect()
    }
}

/// Runs requests that arrive together to their ends.
fn run(config: SchedulerConfig, requests: &[Request]) -> (Vec<Answer>, Load) {
    let mut scheduler = Scheduler::new(config);
    let slots = vec![TokenId::MAX; config.block_size * config.block_count];
    let mut shadow = Shadow { block_size: config.block_size, slots, samplers: BTreeMap::new() };
    for (id, request) in (0..).zip(requests) {
        let Request { prompt, limits, scope, .. } = request;
        let sequence = SequenceRequest {
            tokens: prompt,
            media: &[],
            limits: limits.clone(),
            standing: Standing::default(),
            scope: *scope,
            scores_prompt: false,
        };
        scheduler.add(SequenceId(id), sequence).expect("it fits");
    }
    let mut answers: Vec<Answer> = vec![(Vec::new(), None); requests.len()];
    loop {
        let plan = scheduler.plan_step();
        if plan.entries.is_empty() {
            break;
        }
        let mut results = Vec::new();
        for entry in &plan.entries {
            let context = shadow.context(entry);
            if entry.samples {
                let known = context.len() - entry.draft;
                let mut rows: Vec<_> = (known..=context.len()).map(|end| logits(&context[..end])).collect();
                let sampler = shadow.sampler(entry.sequence, &requests[entry.sequence.0 as usize]);
                let rows = rows.iter_mut().map(Vec::as_mut_slice);
                let sampled = sampler.sample_draft(rows, entry.draft_tokens());
                results.extend(sampled.into_iter().map(|result| (entry.sequence, result)));
            }
        }
        let samples: Vec<Sample> = results
            .iter()
            .map(|(sequence, result)| Sample {
                sequence: *sequence,
                token: result.as_ref().ok().map(|t| t.id),
            })
            .collect();
        for (update, (sequence, result)) in scheduler.commit(&plan, &samples).into_iter().zip(results) {
            let (tokens, end) = &mut answers[sequence.0 as usize];
            assert!(end.is_none(), "sampled after the end");
            tokens.extend(result.ok());
            if let SequenceUpdate::Finished { finished, .. } = update {
                *end = Some(finished);
            }
        }
        scheduler.check_invariants();
    }
    (answers, scheduler.load())
}

fn config(block_size: usize, block_count: usize, speculation: Option<Speculation>) -> SchedulerConfig {
    SchedulerConfig {
        block_size,
        block_count,
        max_batch_tokens: 24,
        max_sequences: 4,
        max_context: 80,
        speculation,
    }
}

fn any_sampling() -> impl Strategy<Value = Sampling> {
    let penalty = || prop_oneof![Just(0.0_f32), 0.1_f32..0.8];
    let penalties = (penalty(), penalty(), prop_oneof![2 => Just(1.0_f32), 1 => 1.05_f32..1.5]);
    let filters =
        (prop_oneof![Just(0.0_f32), 0.2_f32..1.2], 0.7_f32..=1.0, prop::option::of(2..4_usize), any::<u64>());
    (filters, penalties).prop_map(|((temperature, top_p, top_k, seed), (presence, frequency, repetition))| {
        Sampling {
            temperature,
            top_p,
            top_k,
            min_p: 0.01,
            presence_penalty: presence,
            frequency_penalty: frequency,
            repetition_penalty: repetition,
            logit_bias: vec![(2, 0.3)],
            seed,
        }
    })
}

fn any_request() -> impl Strategy<Value = Request> {
    let prompt = prop::collection::vec(0..STOP, 1..24);
    let stops = prop_oneof![Just(vec![]), Just(vec![STOP]), Just(vec![STOP, 1])];
    let constraint = (0..6_usize, any::<bool>()).prop_map(|(min_tokens, guided)| {
        let guide = guided.then(|| Arc::new(Moody::default()) as Arc<dyn GuideSource>);
        Constraint { min_tokens, guide }
    });
    let scope = prop::option::of(Just(CacheScope([1; 32])));
    (prompt, any_sampling(), (1..40_usize, stops), constraint, prop::option::of(0..3_usize), scope).prop_map(
        |(prompt, sampling, (max_tokens, stop_tokens), constraint, logprobs, scope)| Request {
            prompt,
            sampling,
            limits: Limits { max_tokens, stop_tokens },
            constraint,
            logprobs,
            scope,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Tokens, log probabilities and ends, greedy and seeded, with penalties, stop tokens, limits, guides, preemption and
    /// shared prefixes.
    #[test]
    fn drafts_change_nothing(
        requests in prop::collection::vec(any_request(), 1..7),
        block_size in 1..=8_usize, spare in 0..20_usize, max_draft in 1..9_usize,
    ) {
        // From barely enough for one to enough for most.
        let blocks = 64_usize.div_ceil(block_size) + spare;
        let speculation = Speculation { max_draft, max_rows: 16, eager: true };
        let (plain, load) = run(config(block_size, blocks, None), &requests);
        prop_assert_eq!(load.drafts, 0);
        let (speculative, load) = run(config(block_size, blocks, Some(speculation)), &requests);
        prop_assert!(load.accepted_tokens <= load.draft_tokens);
        for (plain, speculative) in plain.into_iter().zip(speculative) {
            prop_assert_eq!(plain.0, speculative.0);
            // What is found in the prefix cache depends on who was admitted when.
            let end = |end: Option<Finished>| end.map(|end| Finished { cached_tokens: 0, ..end });
            prop_assert_eq!(end(plain.1), end(speculative.1));
        }
    }
}

/// The first three tokens after one prompt have the frequencies that the logits say, with drafts in most steps.
#[test]
fn sampled_texts_have_the_frequencies_of_the_model() {
    const TEXTS: u64 = 6_000;
    let prompt = vec![0, 1, 2, 0, 1, 3, 1, 3];
    let requests: Vec<Request> = (0..TEXTS)
        .map(|seed| Request {
            prompt: prompt.clone(),
            sampling: Sampling { temperature: 1.0, seed, ..Sampling::greedy() },
            limits: Limits { max_tokens: 7, stop_tokens: vec![] },
            constraint: Constraint::default(),
            logprobs: None,
            scope: None,
        })
        .collect();
    let speculation = Some(Speculation { max_draft: 4, max_rows: 16, eager: true });
    let config = SchedulerConfig { max_sequences: 2, ..config(4, 32, speculation) };
    let (answers, load) = run(config, &requests);
    assert!(load.draft_tokens > TEXTS && load.accepted_tokens > TEXTS / 10, "{load:?}");
    assert!(
        load.accepted_tokens < load.draft_tokens * 9 / 10,
        "both outcomes are meant to be tested: {load:?}"
    );

    let mut observed: BTreeMap<Vec<TokenId>, f64> = BTreeMap::new();
    for (tokens, _) in &answers {
        *observed.entry(tokens.iter().take(3).map(|token| token.id).collect()).or_default() += 1.0;
    }
    let mut texts = vec![(Vec::new(), 1.0)];
    for _ in 0..3 {
        let longer = texts.iter().flat_map(|(text, probability): &(Vec<TokenId>, f64)| {
            let weights: Vec<f64> =
                logits(&[&prompt[..], text].concat()).iter().map(|x| f64::from(*x).exp()).collect();
            let total: f64 = weights.iter().sum();
            let next = |(token, weight): (usize, &f64)| {
                ([&text[..], &[token as TokenId]].concat(), probability * weight / total)
            };
            weights.iter().enumerate().map(next).collect::<Vec<_>>()
        });
        texts = longer.collect();
    }
    // Cells with few expected texts are put together, as the test demands.
    let (mut statistic, mut cells, mut rest) = (0.0, 0.0, (0.0, 0.0));
    let mut add = |expected: f64, observed: f64| {
        statistic += (observed - expected).powi(2) / expected;
        cells += 1.0;
    };
    for (text, probability) in texts {
        let (expected, observed) = (probability * TEXTS as f64, observed.get(&text).copied().unwrap_or(0.0));
        if expected < 10.0 { rest = (rest.0 + expected, rest.1 + observed) } else { add(expected, observed) }
    }
    if rest.0 > 0.0 {
        add(rest.0, rest.1);
    }
    // Wilson and Hilferty: the cube root of chi-square over its degrees of freedom is normal; 4 deviations are 1 in 30,000.
    let freedom: f64 = cells - 1.0;
    let spread = 2.0 / (9.0 * freedom);
    let deviations = ((statistic / freedom).cbrt() - (1.0 - spread)) / spread.sqrt();
    assert!(
        freedom > 30.0 && deviations < 4.0,
        "chi-square {statistic} with {freedom} degrees: {deviations} deviations"
    );
}
