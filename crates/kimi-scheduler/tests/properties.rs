//! Scheduling never changes text, loses no block, always makes progress and admits in order: for any sizes and any load.
//!
//! The cache is tiny, blocks hold 1 to 8 positions and there are three tokens, so that sequences collide all the time.
//! Drafts of any length are made for some, and are right for some.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use kimi_scheduler::{
    CacheScope, FinishReason, Finished, Limits, Rejection, Sample, Scheduler, SchedulerConfig, SequenceId,
    SequenceRequest, SequenceUpdate, Speculation, Standing, StepPlan, Tenant,
};
use kimi_tokens::{ContentHash, Medium, PatchGrid, PromptMedium, TokenId};
use proptest::prelude::*;

/// One request of a generated load.
#[derive(Clone, Debug)]
struct Request {
    arrival: usize,
    prompt: Vec<TokenId>,
    media: Vec<PromptMedium>,
    limits: Limits,
    fate: Fate,
    standing: Standing,
    scope: Option<CacheScope>,
    scores_prompt: bool,
}

/// What a position of the cache holds: a token and, inside of an image, which one and which part of it.
type Cell = (TokenId, Option<(ContentHash, usize)>);

impl Request {
    fn sequence(&self) -> SequenceRequest<'_> {
        let Self { prompt, media, limits, standing, scope, scores_prompt, .. } = self;
        SequenceRequest {
            tokens: prompt,
            media,
            limits: limits.clone(),
            standing: *standing,
            scope: *scope,
            scores_prompt: *scores_prompt,
        }
    }

    /// What is at a position that has this token.
    fn cell(&self, position: usize, token: TokenId) -> Cell {
        let seen = self.media.iter().find(|medium| medium.positions.contains(&position));
        (token, seen.map(|medium| (medium.medium.hash, position - medium.positions.start)))
    }
}

/// What happens to it from outside.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Completes,
    /// Cancelled this many steps after its arrival, between steps or while a step runs.
    Cancelled {
        after: usize,
        in_flight: bool,
    },
    /// Sampling fails instead of giving the token with this index.
    Fails {
        at: usize,
    },
}

/// How a request ended: its text, and its `Finished` unless it failed.
type Answer = (Vec<TokenId>, Option<Finished>);

/// The "model": the next token depends on the request and on every token and image before it. Some requests see the last two
/// tokens only, so that they repeat themselves, which is what drafts are made for.
fn next_token(id: u64, tokens: &[Cell]) -> TokenId {
    let mut hasher = DefaultHasher::new();
    let seen = if id.is_multiple_of(3) { tokens } else { &tokens[tokens.len().saturating_sub(2)..] };
    (id, seen).hash(&mut hasher);
    (hasher.finish() % 3) as TokenId
}

/// What the request gets when it is alone and the cache has no end.
fn answer_alone(id: u64, request: &Request, context: usize) -> Answer {
    let prompt = request.prompt.iter().enumerate();
    let mut tokens: Vec<Cell> = prompt.map(|(position, token)| request.cell(position, *token)).collect();
    let prompt_tokens = tokens.len();
    let generated = |tokens: &[Cell]| tokens[prompt_tokens..].iter().map(|cell| cell.0).collect();
    loop {
        let completion_tokens = tokens.len() - prompt_tokens + 1;
        if matches!(request.fate, Fate::Fails { at } if at + 1 == completion_tokens) {
            return (generated(&tokens), None);
        }
        let token = next_token(id, &tokens);
        tokens.push((token, None));
        let reason = if request.limits.stop_tokens.contains(&token) {
            FinishReason::Stop
        } else if completion_tokens == request.limits.max_tokens || tokens.len() == context {
            FinishReason::Length
        } else {
            continue;
        };
        let finished = Finished { reason, prompt_tokens, cached_tokens: 0, completion_tokens };
        return (generated(&tokens), Some(finished));
    }
}

/// A runner whose cache holds the tokens and parts of images themselves: what it samples depends on what it finds through the
/// block table, so a wrong table, a stale block or a block that somebody else writes to changes the text.
struct ShadowCache {
    block_size: usize,
    slots: Vec<Cell>,
    /// Who may read each block: those of a scope, or the one sequence that wrote it.
    readers: Vec<Result<CacheScope, SequenceId>>,
}

impl ShadowCache {
    fn run(
        &mut self,
        plan: &StepPlan,
        requests: &[Request],
        texts: &BTreeMap<u64, Vec<TokenId>>,
    ) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (index, entry) in plan.entries.iter().enumerate() {
            let end = entry.start + entry.tokens.len();
            let written = &entry.blocks[entry.start / self.block_size..end.div_ceil(self.block_size)];
            for other in plan.entries.iter().enumerate().filter(|(other, _)| *other != index) {
                assert!(
                    written.iter().all(|block| !other.1.blocks.contains(block)),
                    "a block that is written is in two tables: {plan:?}"
                );
            }
            let reader = requests[entry.sequence.0 as usize].scope.ok_or(entry.sequence);
            for block in written {
                self.readers[block.0 as usize] = reader;
            }
            for block in &entry.blocks[..end.div_ceil(self.block_size)] {
                assert_eq!(self.readers[block.0 as usize], reader, "a block of somebody else is read");
            }
            let slot = |position: usize| {
                entry.blocks[position / self.block_size].0 as usize * self.block_size
                    + position % self.block_size
            };
            for (position, token) in (entry.start..end).zip(&entry.tokens) {
                self.slots[slot(position)] = requests[entry.sequence.0 as usize].cell(position, *token);
            }
            if !entry.samples {
                continue;
            }
            let generated = texts.get(&entry.sequence.0).map_or(0, Vec::len);
            for row in 0..=entry.draft {
                let known = end - entry.draft + row;
                let seen: Vec<Cell> = (0..known).map(|position| self.slots[slot(position)]).collect();
                let fate = requests[entry.sequence.0 as usize].fate;
                let fails = matches!(fate, Fate::Fails { at } if at == generated + row);
                let token = (!fails).then(|| next_token(entry.sequence.0, &seen));
                samples.push(Sample { sequence: entry.sequence, token });
                if token != entry.draft_tokens().get(row).copied() {
                    break;
                }
            }
        }
        samples
    }
}

/// What a run of a load showed.
#[derive(Default)]
struct Record {
    texts: BTreeMap<u64, Vec<TokenId>>,
    ended: BTreeMap<u64, Option<Finished>>,
    rejected: BTreeSet<u64>,
    /// Sequences in the order in which plans first named them.
    admitted: Vec<SequenceId>,
    /// The position at which each began to compute: what it was spared.
    begun_at: BTreeMap<u64, usize>,
    retired: Vec<SequenceId>,
    /// How far each prompt's positions had their logits reported.
    scored: BTreeMap<u64, usize>,
    /// Sequences that the last step gave a token and that want more.
    answering: BTreeSet<SequenceId>,
    steps: usize,
}

impl Record {
    /// Beside an answer, a plan computes only so many tokens beyond one for each sequence.
    fn answers_are_not_held_up(&self, plan: &StepPlan, catch_up: usize) {
        if plan.entries.iter().any(|entry| self.answering.contains(&entry.sequence)) {
            let beyond = plan.entries.iter().map(|entry| entry.tokens.len() - entry.draft - 1);
            assert!(beyond.sum::<usize>() <= catch_up, "{plan:?} holds up an answer");
        }
    }

    /// Each position of a prompt but the last is scored once, in order and before the answer, if that was asked for.
    fn prompts_are_scored_once(&mut self, plan: &StepPlan, requests: &[Request]) {
        for entry in &plan.entries {
            let Some(Request { prompt, scores_prompt, .. }) = requests.get(entry.sequence.0 as usize) else {
                continue;
            };
            let scored = self.scored.entry(entry.sequence.0).or_default();
            if !entry.scores.is_empty() {
                assert_eq!(entry.start + entry.scores.start, *scored, "{plan:?}");
                *scored += entry.scores.len();
            }
            let wanted = if *scores_prompt { prompt.len() - 1 } else { 0 };
            assert!(*scored <= wanted && (!entry.samples || *scored == wanted), "{plan:?}");
        }
    }

    fn note(&mut self, update: SequenceUpdate) {
        match update {
            SequenceUpdate::Appended { sequence, token } => {
                self.answering.insert(sequence);
                self.texts.entry(sequence.0).or_default().push(token);
            }
            SequenceUpdate::Finished { sequence, token, finished } => {
                self.texts.entry(sequence.0).or_default().push(token);
                assert!(self.ended.insert(sequence.0, Some(finished)).is_none(), "ended twice");
            }
            SequenceUpdate::Failed { sequence } => {
                assert!(self.ended.insert(sequence.0, None).is_none(), "ended twice");
            }
            SequenceUpdate::Gone { .. } => {}
        }
    }
}

/// Cancels what is due at this moment.
fn cancel_due(scheduler: &mut Scheduler, requests: &[Request], now: usize, flying: bool) {
    for (id, request) in requests.iter().enumerate() {
        if matches!(request.fate, Fate::Cancelled { after, in_flight }
            if in_flight == flying && request.arrival + after == now)
        {
            scheduler.cancel(SequenceId(id as u64));
            scheduler.check_invariants();
        }
    }
}

/// What an engine tells a scheduler of the machine.
#[derive(Clone, Copy, Debug)]
struct Pace {
    row_cost: f64,
    catch_up: usize,
}

/// Runs a load to its end. `requests` are in the order of arrival.
fn run(config: SchedulerConfig, pace: Pace, requests: &[Request], step_limit: usize) -> Record {
    let mut scheduler = Scheduler::new(config);
    scheduler.set_row_cost(pace.row_cost);
    scheduler.set_catch_up(pace.catch_up);
    let mut cache = ShadowCache {
        block_size: config.block_size,
        slots: vec![(TokenId::MAX, None); config.block_size * config.block_count],
        readers: vec![Err(SequenceId(u64::MAX)); config.block_count],
    };
    let mut record = Record::default();
    let last_event = requests.iter().map(|request| request.arrival + 40).max().unwrap_or(0);
    for now in 0.. {
        for (id, request) in requests.iter().enumerate().filter(|(_, request)| request.arrival == now) {
            let added = scheduler.add(SequenceId(id as u64), request.sequence());
            if added.is_err() {
                record.rejected.insert(id as u64);
            }
        }
        cancel_due(&mut scheduler, requests, now, false);
        let plan = scheduler.plan_step();
        scheduler_state_is_sound(&scheduler, &plan, config);
        record.answers_are_not_held_up(&plan, pace.catch_up);
        record.prompts_are_scored_once(&plan, requests);
        cancel_due(&mut scheduler, requests, now, true);
        if plan.entries.is_empty() {
            assert_eq!(scheduler.load().waiting + scheduler.load().running, 0, "work without a plan");
            if now > last_event {
                break;
            }
            continue;
        }
        record.steps += 1;
        assert!(record.steps <= step_limit, "no end after {step_limit} steps");
        for entry in &plan.entries {
            record.begun_at.entry(entry.sequence.0).or_insert(entry.start);
        }
        let new = plan.entries.iter().map(|entry| entry.sequence).filter(|id| !record.admitted.contains(id));
        let new: Vec<_> = new.collect();
        record.admitted.extend(new);
        for id in &plan.retired {
            assert!(record.admitted.contains(id), "{id:?} is retired but was never planned");
            record.retired.push(*id);
        }
        let samples = cache.run(&plan, requests, &record.texts);
        record.answering.clear();
        for update in scheduler.commit(&plan, &samples) {
            record.note(update);
        }
        scheduler.check_invariants();
    }
    assert_eq!(scheduler.load().blocks_free, config.block_count, "blocks leaked");
    // The next plan, whatever it is, tells who ended last.
    let last = SequenceRequest { tokens: &[1], ..SequenceRequest::default() };
    scheduler.add(SequenceId(requests.len() as u64), last).expect("one token always fits");
    record.retired.extend(scheduler.plan_step().retired);
    record
}

fn scheduler_state_is_sound(scheduler: &Scheduler, plan: &StepPlan, config: SchedulerConfig) {
    scheduler.check_invariants();
    let tokens: usize = plan.entries.iter().map(|entry| entry.tokens.len()).sum();
    assert!(tokens <= config.max_batch_tokens, "the plan breaks the token budget");
    assert!(plan.entries.len() <= config.max_sequences, "the plan has too many sequences");
    assert!(plan.entries.iter().all(|entry| entry.tokens.len() > entry.draft), "an entry computes nothing");
    if plan.entries.iter().any(|entry| entry.draft > 0) {
        let Speculation { max_draft, max_rows, .. } =
            config.speculation.expect("drafts only with speculation");
        assert!(tokens <= max_rows && plan.entries.iter().all(|entry| entry.draft <= max_draft), "{plan:?}");
        assert!(plan.entries.iter().all(|entry| entry.samples || entry.draft == 0), "{plan:?}");
    }
}

fn any_config() -> impl Strategy<Value = SchedulerConfig> {
    let speculation = (0..=5_usize, 0..=12_usize).prop_map(|(max_draft, max_rows)| Speculation {
        max_draft,
        max_rows,
        eager: false,
    });
    let sizes = (1..=8_usize, 2..=12_usize, 1..=9_usize, 1..=5_usize, 2..=24_usize);
    (sizes, prop::option::weighted(0.8, speculation)).prop_map(
        |((block_size, block_count, max_batch_tokens, max_sequences, max_context), speculation)| {
            SchedulerConfig {
                block_size,
                block_count,
                max_batch_tokens,
                max_sequences,
                max_context,
                speculation,
            }
        },
    )
}

/// Mostly such that every proposal is tried.
fn any_pace() -> impl Strategy<Value = Pace> {
    let row_cost = prop_oneof![3 => Just(0.0), 1 => 0.0..0.3, 1 => 0.0..1.0];
    (row_cost, 1..=9_usize).prop_map(|(row_cost, catch_up)| Pace { row_cost, catch_up })
}

/// Two images of any size at any places, so that equal text is often seen with others, or elsewhere.
fn any_media() -> impl Strategy<Value = Vec<PromptMedium>> {
    let medium = (0..4_usize, 1..7_usize, 0..2_u8);
    prop::collection::vec(medium, 0..3).prop_map(|media| {
        let mut end = 0;
        let placed = media.into_iter().map(|(gap, tokens, image)| {
            let positions = end + gap..end + gap + tokens;
            end = positions.end;
            let grid = PatchGrid { frames: 1, height: 2, width: 2 * tokens };
            let hash = ContentHash([image * 16 + tokens as u8; 32]);
            PromptMedium { positions, medium: Arc::new(Medium { grid, pixels: vec![], hash }) }
        });
        placed.collect()
    })
}

fn any_request() -> impl Strategy<Value = Request> {
    let fate = prop_oneof![
        4 => Just(Fate::Completes),
        1 => (0..30_usize, any::<bool>()).prop_map(|(after, in_flight)| Fate::Cancelled { after, in_flight }),
        1 => (0..6_usize).prop_map(|at| Fate::Fails { at }),
    ];
    let stop_tokens = prop_oneof![2 => Just(vec![]), 1 => Just(vec![0])];
    // Mostly the same few tokens, so that prefixes meet.
    let token = prop_oneof![4 => Just(1_u32), 1 => Just(0), 1 => Just(2)];
    let scope = prop::option::weighted(
        0.8,
        prop_oneof![3 => Just(CacheScope([1; 32])), 1 => Just(CacheScope([2; 32]))],
    );
    let standing = (prop_oneof![3 => Just(0), 1 => Just(-1), 1 => Just(1)], 0..3_u64)
        .prop_map(|(priority, tenant)| Standing { priority, tenant: Tenant(tenant) });
    let text = (prop::collection::vec(token, 0..20), any_media(), 1..16_usize, stop_tokens);
    let asked = (scope, prop::bool::weighted(0.3));
    (0..12_usize, text, fate, standing, asked).prop_map(
        |(
            arrival,
            (mut prompt, mut media, max_tokens, stop_tokens),
            fate,
            standing,
            (scope, scores_prompt),
        )| {
            media.retain(|medium| medium.positions.end <= prompt.len());
            for medium in &media {
                prompt[medium.positions.clone()].fill(1);
            }
            let limits = Limits { max_tokens, stop_tokens };
            Request { arrival, prompt, media, limits, fate, standing, scope, scores_prompt }
        },
    )
}

fn any_load() -> impl Strategy<Value = Vec<Request>> {
    prop::collection::vec(any_request(), 1..20).prop_map(|mut requests| {
        requests.sort_by_key(|request| request.arrival);
        requests
    })
}

/// Steps within which a load must end. The first of the running sequences always gets the first share of the budget and
/// all the blocks it needs, so at worst requests run one after the other: a request's prompt, and its text once more should
/// it have been preempted, takes `ceil(tokens / share)` steps, and each of its tokens one more. Each more urgent request
/// may make it start over.
fn step_limit(config: SchedulerConfig, pace: Pace, requests: &[Request]) -> usize {
    let share = config.max_batch_tokens.min(1 + pace.catch_up);
    let steps = |request: &Request| {
        let longest = (request.prompt.len() + request.limits.max_tokens).min(config.context_limit());
        let urgent = |other: &&Request| other.standing.priority < request.standing.priority;
        let starts = 1 + requests.iter().filter(urgent).count();
        longest.div_ceil(share) * starts + request.limits.max_tokens
    };
    requests.iter().map(steps).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_load_gets_the_text_it_would_get_alone(
        config in any_config(), pace in any_pace(), requests in any_load(),
    ) {
        let record = run(config, pace, &requests, step_limit(config, pace, &requests));

        let standing = |id: &SequenceId| requests[id.0 as usize].standing;
        for first in &record.admitted {
            let equals = record.admitted.iter().filter(|id| standing(id) == standing(first));
            prop_assert!(equals.is_sorted(), "equals are not first come, first served: {:?}", record.admitted);
        }
        let (mut retired, mut admitted) = (record.retired.clone(), record.admitted.clone());
        retired.sort();
        admitted.sort();
        prop_assert_eq!(&retired, &admitted, "everyone who was planned is retired once");

        for (id, request) in (0_u64..).zip(&requests) {
            let limit = config.max_prompt_tokens();
            let fits = (1..=limit).contains(&request.prompt.len());
            prop_assert_eq!(record.rejected.contains(&id), !fits);
            if !fits {
                continue;
            }
            let (text, mut end) = answer_alone(id, request, config.context_limit());
            if let (Some(end), Some(begun_at)) = (&mut end, record.begun_at.get(&id)) {
                end.cached_tokens = *begun_at;
            }
            prop_assert!(request.scope.is_some() || record.begun_at.get(&id).is_none_or(|at| *at == 0));
            let got = record.texts.get(&id).map_or(&[][..], Vec::as_slice);
            match (request.fate, record.ended.get(&id)) {
                // It may have ended before the cancellation; if not, what it said until then was right.
                (Fate::Cancelled { .. }, None) => prop_assert!(text.starts_with(got)),
                (_, Some(finished)) => prop_assert_eq!((got, finished), (&text[..], &end)),
                (_, None) => prop_assert!(false, "request {} never ended", id),
            }
        }
    }
}

#[test]
fn rejections_name_the_limit() {
    let config = SchedulerConfig {
        block_size: 4,
        block_count: 2,
        max_batch_tokens: 8,
        max_sequences: 1,
        max_context: 100,
        speculation: None,
    };
    let mut scheduler = Scheduler::new(config);
    let prompt = |tokens| SequenceRequest { tokens, ..SequenceRequest::default() };
    assert_eq!(scheduler.add(SequenceId(0), prompt(&[])), Err(Rejection::Empty));
    let too_long = scheduler.add(SequenceId(1), prompt(&[0; 8]));
    assert_eq!(too_long, Err(Rejection::TooLong { prompt_tokens: 8, limit: 7 }));
    assert_eq!(scheduler.add(SequenceId(2), prompt(&[0; 7])), Ok(()));
}
