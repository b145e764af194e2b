//! A second tier never changes text and never loses a block of the cache: for any sizes, any load, and a store that
//! declines, loses and damages what it is given.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use kimi_scheduler::{
    BlockKey, CacheScope, Limits, Sample, Scheduler, SchedulerConfig, SequenceId, SequenceRequest,
    SequenceUpdate, Speculation, Standing, StepPlan, TierContents, TierReport,
};
use kimi_tokens::TokenId;
use proptest::prelude::*;

/// The next token depends on every token before it, and on nothing else, so that equal prompts have equal texts.
fn next_token(tokens: &[TokenId]) -> TokenId {
    let mut hasher = DefaultHasher::new();
    tokens.hash(&mut hasher);
    (hasher.finish() % 2) as TokenId
}

fn text_alone(prompt: &[TokenId], max_tokens: usize, context: usize) -> Vec<TokenId> {
    let mut tokens = prompt.to_vec();
    while tokens.len() < context && tokens.len() - prompt.len() < max_tokens {
        tokens.push(next_token(&tokens));
    }
    tokens.split_off(prompt.len())
}

/// What a store does with the n-th block it is given.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Keeps,
    KeepsLater,
    Declines,
    Loses,
    Damages,
}

/// Outlives schedulers, as files do.
#[derive(Default)]
struct Store {
    blocks: BTreeMap<[u8; 16], Option<Vec<TokenId>>>,
    /// Oldest first.
    order: Vec<BlockKey>,
    /// Taken over and not written yet.
    late: Vec<(BlockKey, Vec<TokenId>)>,
    given: usize,
    restored: usize,
}

impl Store {
    fn write(&mut self, key: BlockKey, content: Option<Vec<TokenId>>) {
        self.order.retain(|other| *other != key);
        self.order.push(key);
        self.blocks.insert(key.0, content);
    }

    /// The runner's part of a tier plan.
    fn work(&mut self, plan: &StepPlan, slots: &mut [TokenId], size: usize, moods: &[Mood]) -> TierReport {
        let slot = |block: u32| block as usize * size..(block as usize + 1) * size;
        let mut report = TierReport::default();
        let saves: Vec<_> =
            plan.tier.saves.iter().map(|(block, key)| (*key, slots[slot(block.0)].to_vec())).collect();
        for (block, key) in &plan.tier.restores {
            let Some(content) = self.blocks.get(&key.0).and_then(Option::as_ref) else { break };
            slots[slot(block.0)].copy_from_slice(content);
            report.restored += 1;
        }
        self.restored += report.restored;
        self.write_late(&mut report);
        for key in &plan.tier.drops {
            self.blocks.remove(&key.0);
            self.order.retain(|other| other != key);
        }
        for (key, content) in saves {
            let mood = moods[self.given % moods.len()];
            self.given += 1;
            match mood {
                Mood::Declines => break,
                Mood::KeepsLater => self.late.push((key, content)),
                Mood::Loses => report.unwritten.push(key),
                Mood::Keeps | Mood::Damages => {
                    self.write(key, matches!(mood, Mood::Keeps).then_some(content));
                    report.written.push(key);
                }
            }
            report.accepted += 1;
        }
        if plan.tier.drain {
            self.write_late(&mut report);
        }
        report
    }

    fn write_late(&mut self, report: &mut TierReport) {
        for (key, content) in std::mem::take(&mut self.late) {
            self.write(key, Some(content));
            report.written.push(key);
        }
    }
}

#[derive(Clone, Debug)]
struct Request {
    arrival: usize,
    prompt: Vec<TokenId>,
    max_tokens: usize,
    priority: i32,
    fails: bool,
    cancelled_after: Option<usize>,
}

/// Runs a load and returns each request's text and cached tokens.
fn run(
    config: SchedulerConfig,
    capacity: usize,
    requests: &[Request],
    store: &mut Store,
    moods: &[Mood],
) -> Vec<(Vec<TokenId>, Option<usize>)> {
    let mut scheduler =
        Scheduler::new(config).with_tier(TierContents { capacity, stored: store.order.clone() });
    let size = config.block_size;
    let mut slots = vec![TokenId::MAX; size * config.block_count];
    let mut results = vec![(Vec::new(), None); requests.len()];
    for now in 0.. {
        for (id, request) in requests.iter().enumerate() {
            if request.arrival == now {
                let limits = Limits { max_tokens: request.max_tokens, stop_tokens: vec![] };
                let scope = Some(CacheScope::default());
                let standing = Standing { priority: request.priority, ..Standing::default() };
                let sequence = SequenceRequest {
                    tokens: &request.prompt,
                    media: &[],
                    limits,
                    standing,
                    scope,
                    scores_prompt: false,
                };
                let _ = scheduler.add(SequenceId(id as u64), sequence);
            }
            if request.cancelled_after.is_some_and(|after| request.arrival + after == now) {
                scheduler.cancel(SequenceId(id as u64));
            }
        }
        let plan = scheduler.plan_step();
        scheduler.check_invariants();
        if plan.is_empty() {
            if now > 40 {
                assert_eq!(scheduler.load().waiting + scheduler.load().running, 0, "work without a plan");
                assert!(store.late.is_empty(), "a block was never heard of again");
                assert!(!scheduler.has_unsettled_blocks(), "work for the tier without a plan");
                break;
            }
            continue;
        }
        assert!(now < 5_000, "no end");
        let report = store.work(&plan, &mut slots, size, moods);
        assert!(store.order.len() + store.late.len() <= capacity.max(1), "the store is too full");
        let samples = compute(&plan, &mut slots, size, requests, &results);
        scheduler.settle(&plan.tier, &report);
        for update in scheduler.commit(&plan, &samples) {
            match update {
                SequenceUpdate::Appended { sequence, token } => results[sequence.0 as usize].0.push(token),
                SequenceUpdate::Finished { sequence, token, finished } => {
                    let result = &mut results[sequence.0 as usize];
                    result.0.push(token);
                    result.1 = Some(finished.cached_tokens);
                }
                _ => {}
            }
        }
        scheduler.check_invariants();
    }
    assert_eq!(scheduler.load().blocks_free, config.block_count, "blocks leaked");
    results
}

/// A model whose cache holds the tokens: whatever lies in a wrong block changes the text.
fn compute(
    plan: &StepPlan,
    slots: &mut [TokenId],
    size: usize,
    requests: &[Request],
    results: &[(Vec<TokenId>, Option<usize>)],
) -> Vec<Sample> {
    let mut samples = Vec::new();
    for entry in &plan.entries {
        let slot = |position: usize| entry.blocks[position / size].0 as usize * size + position % size;
        let request = &requests[entry.sequence.0 as usize];
        let text = [&request.prompt[..], &results[entry.sequence.0 as usize].0].concat();
        // What was not computed here came from the cache: it must be the prefix's tokens.
        let cached: Vec<_> = (0..entry.start).map(|position| slots[slot(position)]).collect();
        assert_eq!(cached, text[..entry.start], "a block holds something else than the prefix");
        let end = entry.start + entry.tokens.len();
        (entry.start..end).zip(&entry.tokens).for_each(|(position, token)| slots[slot(position)] = *token);
        for row in 0..if entry.samples { entry.draft + 1 } else { 0 } {
            let known = end - entry.draft + row;
            let seen: Vec<_> = (0..known).map(|position| slots[slot(position)]).collect();
            let token = (!request.fails).then(|| next_token(&seen));
            samples.push(Sample { sequence: entry.sequence, token });
            if token != entry.draft_tokens().get(row).copied() {
                break;
            }
        }
    }
    samples
}

fn any_config() -> impl Strategy<Value = SchedulerConfig> {
    let speculation = (1..=5_usize, any::<bool>()).prop_map(|(max_draft, eager)| Speculation {
        max_draft,
        max_rows: 12,
        eager,
    });
    let sizes = (1..=8_usize, 2..=12_usize, 1..=12_usize, 1..=4_usize);
    (sizes, prop::option::of(speculation)).prop_map(
        |((block_size, block_count, max_batch_tokens, max_sequences), speculation)| SchedulerConfig {
            block_size,
            block_count,
            max_batch_tokens,
            max_sequences,
            max_context: 40,
            speculation,
        },
    )
}

fn any_load() -> impl Strategy<Value = Vec<Request>> {
    // Two tokens, mostly one of them, so that prefixes meet.
    let prompt = prop::collection::vec(prop_oneof![9 => Just(1_u32), 1 => Just(0)], 1..36);
    let fate = (prop::bool::weighted(0.1), prop::option::weighted(0.15, 0..30_usize));
    let urgency = prop_oneof![3 => Just(0), 1 => Just(-1)];
    let request = (0..20_usize, prompt, 1..8_usize, urgency, fate).prop_map(
        |(arrival, prompt, max_tokens, priority, (fails, cancelled_after))| Request {
            arrival,
            prompt,
            max_tokens,
            priority,
            fails,
            cancelled_after,
        },
    );
    prop::collection::vec(request, 1..16).prop_map(|mut requests| {
        requests.sort_by_key(|request| request.arrival);
        requests
    })
}

fn any_moods() -> impl Strategy<Value = Vec<Mood>> {
    let mood = prop_oneof![
        6 => Just(Mood::Keeps), 3 => Just(Mood::KeepsLater), 1 => Just(Mood::Declines), 1 => Just(Mood::Loses),
        1 => Just(Mood::Damages),
    ];
    // At least one block is kept now and then, or a store that declines for ever would be asked for ever.
    prop::collection::vec(mood, 1..12).prop_map(|moods| [moods, vec![Mood::Keeps]].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_second_tier_never_changes_text(
        config in any_config(), capacity in 0..40_usize, requests in any_load(), moods in any_moods()
    ) {
        let mut store = Store::default();
        // The second run is another process that finds what the first one left.
        for life in 0..2 {
            let results = run(config, capacity, &requests, &mut store, &moods);
            store.late.clear();
            for (request, (text, cached)) in requests.iter().zip(&results) {
                if request.prompt.len() > config.max_prompt_tokens() {
                    prop_assert!(text.is_empty());
                    continue;
                }
                let alone = text_alone(&request.prompt, request.max_tokens, config.context_limit());
                match (request.fails, request.cancelled_after) {
                    (true, _) => prop_assert!(text.is_empty()),
                    (false, Some(_)) => prop_assert!(alone.starts_with(text)),
                    (false, None) => prop_assert_eq!(text, &alone, "in life {}", life),
                }
                prop_assert!(cached.is_none_or(|cached| cached < request.prompt.len()));
            }
        }
    }
}

/// A cache of 8 blocks of 2 and a store that keeps everything.
fn small() -> SchedulerConfig {
    SchedulerConfig {
        block_size: 2,
        block_count: 8,
        max_batch_tokens: 4,
        max_sequences: 4,
        max_context: 40,
        speculation: None,
    }
}

fn asks(arrival: usize, token: TokenId) -> Request {
    Request {
        arrival,
        prompt: vec![token; 13],
        max_tokens: 2,
        priority: 0,
        fails: false,
        cancelled_after: None,
    }
}

#[test]
fn what_was_evicted_comes_back_and_so_does_what_an_earlier_process_left() {
    let mut store = Store::default();
    // The second prompt takes the place of the first; the third is the first again.
    let results = run(small(), 100, &[asks(0, 1), asks(12, 0), asks(24, 1)], &mut store, &[Mood::Keeps]);
    let cached: Vec<_> = results.iter().map(|(_, cached)| *cached).collect();
    assert_eq!(cached, [Some(0), Some(0), Some(12)]);
    assert!(store.restored > 0);

    store.restored = 0;
    let results = run(small(), 100, &[asks(0, 0)], &mut store, &[Mood::Keeps]);
    assert_eq!((results[0].1, store.restored), (Some(12), 6));
}

#[test]
fn damage_costs_what_follows_it_once() {
    let mut store = Store::default();
    run(small(), 100, &[asks(0, 1)], &mut store, &[Mood::Keeps]);
    // The third block of the prompt, counted from 0.
    let third = store.order[3].0;
    store.blocks.insert(third, None);
    let results = run(small(), 100, &[asks(0, 1)], &mut store, &[Mood::Keeps]);
    assert_eq!((results[0].1, store.restored), (Some(6), 3));
    let results = run(small(), 100, &[asks(0, 1)], &mut store, &[Mood::Keeps]);
    assert_eq!(results[0].1, Some(12), "what was computed again was saved again");
}

#[test]
fn the_tier_keeps_what_was_used_last() {
    let mut store = Store::default();
    // Room for one prompt of 6 full blocks and what it generates.
    run(small(), 7, &[asks(0, 1), asks(12, 0)], &mut store, &[Mood::Keeps]);
    assert_eq!(store.order.len(), 7);
    let results = run(small(), 7, &[asks(0, 0)], &mut store, &[Mood::Keeps]);
    assert_eq!(results[0].1, Some(12));
}
