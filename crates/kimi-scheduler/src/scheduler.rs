//! The scheduler: who computes what in the next step, and what the samples of a step mean.
//!
//! The rule, which is vLLM's: *each step hands out a token budget so that every sequence's `computed` catches up with its
//! length; running sequences first, then waiting ones; when blocks run out, preempt from the tail.* There
//! is no prefill phase and no decode phase. A plan entry is made for the head while only the tail is preempted, so an entry
//! is never taken back.

use kimi_tokens::TokenId;

use crate::block_pool::BlockPool;
use crate::queue::Queue;
use crate::restore::Restore;
use crate::sequence::Sequence;
use crate::speculation::{FIRST_ROW_COST, Speculator, cost_of_row};
use crate::{
    BlockId, Load, MAX_SCORES, PlanEntry, Rejection, Sample, SchedulerConfig, SequenceId, SequenceRequest,
    SequenceUpdate, Speculation, StepPlan,
};

/// Owns every sequence and every block. Pure: no clock, no thread, no randomness; the same calls give the same plans.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: SchedulerConfig,
    pub(crate) pool: BlockPool,
    /// Sequences that hold blocks: the most urgent first, then in the order of admission.
    pub(crate) running: Vec<Sequence>,
    /// Sequences that hold nothing.
    pub(crate) waiting: Queue,
    /// Ended since the last plan with entries, and known to the runner.
    pub(crate) retired: Vec<SequenceId>,
    /// What the plan in flight brings back from the second tier.
    pub(crate) restore: Restore,
    pub(crate) restored_tokens: u64,
    pub(crate) failed_restores: u64,
    preemptions: u64,
    prefix_queries: u64,
    prefix_hits: u64,
    drafts: u64,
    draft_tokens: u64,
    accepted_tokens: u64,
    /// See [`set_row_cost`](Self::set_row_cost).
    row_cost: f64,
    /// See [`set_catch_up`](Self::set_catch_up).
    catch_up: usize,
    /// The largest id so far: ids ascend, so they order arrivals.
    last_id: Option<SequenceId>,
    /// Whether a plan waits for its `commit`.
    in_flight: bool,
}

impl Scheduler {
    /// A scheduler with an empty cache.
    ///
    /// # Panics
    /// When a size in `config` is 0 or the block count does not fit a [`BlockId`].
    pub fn new(config: SchedulerConfig) -> Self {
        let SchedulerConfig { block_size, block_count, max_batch_tokens, max_sequences, max_context, .. } =
            config;
        for size in [block_size, block_count, max_batch_tokens, max_sequences, max_context] {
            assert!(size > 0, "every size must be at least 1: {config:?}");
        }
        assert!(u32::try_from(block_count).is_ok(), "a block id has 32 bits: {config:?}");
        Self {
            config,
            pool: BlockPool::new(block_count),
            running: Vec::new(),
            waiting: Queue::default(),
            retired: Vec::new(),
            restore: Restore::default(),
            restored_tokens: 0,
            failed_restores: 0,
            preemptions: 0,
            prefix_queries: 0,
            prefix_hits: 0,
            drafts: 0,
            draft_tokens: 0,
            accepted_tokens: 0,
            row_cost: FIRST_ROW_COST,
            catch_up: config.max_batch_tokens,
            last_id: None,
            in_flight: false,
        }
    }

    /// Queues a sequence behind all others of its standing.
    ///
    /// # Panics
    /// When `id` is not larger than every earlier one: ids are also arrival numbers.
    pub fn add(&mut self, id: SequenceId, request: SequenceRequest<'_>) -> Result<(), Rejection> {
        assert!(self.last_id < Some(id), "ids ascend: {id:?} after {:?}", self.last_id);
        let limit = self.config.max_prompt_tokens();
        let prompt_tokens = request.tokens.len();
        if prompt_tokens == 0 {
            return Err(Rejection::Empty);
        }
        if prompt_tokens > limit {
            return Err(Rejection::TooLong { prompt_tokens, limit });
        }
        self.last_id = Some(id);
        let speculator = self.config.speculation.map(|_| Speculator::prompt_lookup());
        self.waiting.arrive(Sequence::new(id, request, self.config.context_limit(), speculator));
        Ok(())
    }

    /// Says what share of a step's time a row makes up in a step of one row, from 0 to 1. Drafts are made when they are worth
    /// it at this price.
    pub fn set_row_cost(&mut self, share: f64) {
        self.row_cost = share.clamp(0.0, 1.0);
    }

    /// Says how many tokens, beyond one for each sequence, a step may compute while somebody is answered. So a long prompt
    /// does not hold up the others' answers. At least 1; without an answer under way a step takes all it can.
    pub fn set_catch_up(&mut self, tokens: usize) {
        self.catch_up = tokens.max(1);
    }

    /// Ends a sequence and frees its blocks at once; one that is not known any more is ignored.
    ///
    /// Between a plan and its commit this is allowed too: the freed blocks are not handed out before the next plan.
    pub fn cancel(&mut self, id: SequenceId) {
        if let Some(index) = self.position(id) {
            self.end(index);
        } else if let Some(sequence) = self.waiting.remove(id) {
            self.retire(&sequence);
        }
    }

    /// Ends a running sequence whose computation went wrong, also while a step runs. Nobody finds its blocks again: whatever broke
    /// it may lie in them.
    pub fn fail(&mut self, id: SequenceId) {
        if let Some(index) = self.position(id) {
            self.pool.disown(self.running[index].blocks());
            self.end(index);
        }
    }

    /// Hop 5 of 9. Decides what the next step computes.
    ///
    /// An empty plan means that there is nothing to do, and is not to be run or committed; what was retired is
    /// then told with the next plan. Otherwise [`commit`](Self::commit) must follow before the next plan.
    ///
    /// # Panics
    /// When the last plan was not committed.
    pub fn plan_step(&mut self) -> StepPlan {
        assert!(!self.in_flight, "the last plan was not committed");
        let mut budget = self.config.max_batch_tokens;
        let mut catch_up = if self.is_answering() { self.catch_up } else { budget };
        let mut scores = MAX_SCORES;
        self.make_way();
        let mut entries = Vec::new();
        // Running ones first. What is more urgent than one of them and could not be admitted above waits for the next
        // step: it would have to go before entries that are made.
        while budget > 0
            && (entries.len() < self.running.len()
                || catch_up > 0 && !self.next_outranks_tail() && self.admit())
        {
            let most = self.running[entries.len()].within_scores(budget.min(1 + catch_up), scores);
            let Some(entry) = self.plan_running(entries.len(), most) else { break };
            budget -= entry.tokens.len();
            scores = scores.saturating_sub(entry.scores.len());
            catch_up -= entry.tokens.len() - 1;
            self.waiting.charge(self.running[entries.len()].standing.tenant, entry.tokens.len());
            entries.push(entry);
        }
        self.speculate(&mut entries);
        let tier = self.plan_tier(entries.is_empty());
        if entries.is_empty() && tier.is_empty() {
            return StepPlan::default();
        }
        self.in_flight = true;
        StepPlan { entries, retired: std::mem::take(&mut self.retired), tier }
    }

    /// Hop 8a of 9. Books a step that ran: positions are computed, tokens appended, ended sequences retired.
    ///
    /// `samples` has an item for each entry of `plan` that samples, in the plan's order, and one more behind it for each token
    /// of its draft that was sampled indeed. The answer has as many.
    ///
    /// # Panics
    /// When `samples` is anything else.
    pub fn commit(&mut self, plan: &StepPlan, samples: &[Sample]) -> Vec<SequenceUpdate> {
        assert!(!self.is_restoring(), "what was restored is settled before");
        self.in_flight = false;
        let mut updates = Vec::with_capacity(samples.len());
        let mut rest = samples;
        for entry in &plan.entries {
            let count = rest.iter().take_while(|sample| sample.sequence == entry.sequence).count();
            let (own, others) = rest.split_at(count);
            assert!(answers(entry, own), "samples do not answer the plan");
            rest = others;
            self.book(entry, own, &mut updates);
        }
        assert!(rest.is_empty(), "samples do not answer the plan");
        updates
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        Load {
            waiting: self.waiting.len(),
            running: self.running.len(),
            blocks_used: self.pool.total() - self.pool.free(),
            blocks_free: self.pool.free(),
            blocks_kept: self.pool.kept(),
            blocks_stored: self.pool.tier.as_ref().map_or(0, crate::tier::Tier::len),
            restored_tokens: self.restored_tokens,
            failed_restores: self.failed_restores,
            prefix_queries: self.prefix_queries,
            prefix_hits: self.prefix_hits,
            preemptions: self.preemptions,
            drafts: self.drafts,
            draft_tokens: self.draft_tokens,
            accepted_tokens: self.accepted_tokens,
        }
    }

    /// Whether a sequence waits for nothing but its next token.
    fn is_answering(&self) -> bool {
        self.running.iter().any(Sequence::is_answering)
    }

    /// The entry of `running[index]`, for as many tokens as budget and blocks allow; `None` when it must sit this step out.
    ///
    /// Blocks are taken from later sequences if need be. The last one has nobody behind it: it takes what is free and
    /// keeps what it has, since losing its blocks would not help it.
    fn plan_running(&mut self, index: usize, budget: usize) -> Option<PlanEntry> {
        let block_size = self.config.block_size;
        let wanted = self.running[index].uncomputed().min(budget);
        let missing = self.running[index].missing_blocks(wanted, block_size);
        while self.pool.free() < missing && index + 1 < self.running.len() {
            self.preempt_tail();
        }
        let sequence = &mut self.running[index];
        let room = (sequence.blocks().len() + self.pool.free()) * block_size - sequence.computed();
        let count = wanted.min(room);
        if count == 0 {
            return None;
        }
        sequence.grow(sequence.missing_blocks(count, block_size), &mut self.pool);
        Some(sequence.entry(count))
    }

    /// Takes the blocks of the least urgent sequence, of the one admitted last among equals. It will compute its tokens again, the generated ones included.
    fn preempt_tail(&mut self) {
        let mut tail = self.running.pop().expect("invariant: somebody runs behind the one that needs blocks");
        tail.release(&mut self.pool);
        self.preemptions += 1;
        self.waiting.come_back(tail);
    }

    /// Admits what is more urgent than something that runs, at its expense if need be. Before any entry is made, since
    /// entries are never taken back.
    fn make_way(&mut self) {
        while self.next_outranks_tail() {
            if self.admit() {
                continue;
            }
            if self.is_restoring() || !self.next_fits_instead() {
                return;
            }
            self.preempt_tail();
        }
    }

    /// Whether the next of the queue is more urgent than the tail of those that run.
    fn next_outranks_tail(&self) -> bool {
        let (next, tail) = (self.waiting.next(), self.running.last());
        next.zip(tail).is_some_and(|(next, tail)| next.standing.priority < tail.standing.priority)
    }

    /// Whether the next of the queue would fit in the place of all that it outranks. Their shared blocks are counted as if
    /// they became free, which they may not.
    fn next_fits_instead(&self) -> bool {
        let Some(next) = self.waiting.next() else { return false };
        let outranked = self.running.iter().rev();
        let outranked = outranked.take_while(|running| running.standing.priority > next.standing.priority);
        let (count, blocks) =
            outranked.fold((0, 0), |(count, blocks), sequence| (count + 1, blocks + sequence.blocks().len()));
        let left = self.running.len() - count;
        let needed = next.missing_blocks(next.len() + 1, self.config.block_size) + left;
        count > 0 && left < self.config.max_sequences && needed <= self.pool.free() + blocks
    }

    /// Moves the next of the queue to the running ones if it fits. Never anybody else, or a long prompt would wait for
    /// ever.
    ///
    /// It fits when its tokens and one more do, with a block to spare for each running sequence; without that margin it
    /// would often be preempted at once. Blocks that the prefix cache finds with a running sequence cost nothing. When
    /// nobody runs it always fits, since `add` refused what can not.
    fn admit(&mut self) -> bool {
        let block_size = self.config.block_size;
        if self.running.len() == self.config.max_sequences || self.is_restoring() {
            return false;
        }
        let Some(next) = self.waiting.next_mut() else { return false };
        let found: Vec<BlockId> = self.pool.find(next.prefix_keys(block_size)).collect();
        let shared = found.iter().filter(|block| !self.pool.is_free(**block)).count();
        let needed = next.missing_blocks(next.len() + 1, block_size) - shared + self.running.len();
        if needed > self.pool.free() || self.restores_for_next(&found) {
            return false;
        }
        let Some(mut admitted) = self.waiting.pop() else { return false };
        let (queried, hit) = admitted.adopt(&found, &mut self.pool, block_size);
        self.prefix_queries += queried as u64;
        self.prefix_hits += hit as u64;
        let place =
            self.running.partition_point(|other| other.standing.priority <= admitted.standing.priority);
        self.running.insert(place, admitted);
        true
    }

    /// Gives what the entries leave over to drafts, in their order: rows while the step is small, and free blocks while nobody
    /// waits for them. So drafts take nothing from anybody.
    fn speculate(&mut self, entries: &mut [PlanEntry]) {
        let Some(Speculation { max_draft, max_rows, eager }) = self.config.speculation else { return };
        let rows: usize = entries.iter().map(|entry| entry.tokens.len()).sum();
        let cost = if eager { 0.0 } else { cost_of_row(self.row_cost, rows) };
        let mut left = max_rows.min(self.config.max_batch_tokens).saturating_sub(rows);
        for (entry, sequence) in entries.iter_mut().zip(&mut self.running).filter(|(entry, _)| entry.samples)
        {
            if left == 0 {
                return;
            }
            let free_blocks = if self.waiting.len() == 0 { self.pool.free() } else { 0 };
            let blocks = (free_blocks, self.config.block_size);
            sequence.speculate(entry, max_draft.min(left), cost, blocks, &mut self.pool);
            left -= entry.draft;
        }
    }

    /// What an entry and its samples do to its sequence.
    fn book(&mut self, entry: &PlanEntry, samples: &[Sample], updates: &mut Vec<SequenceUpdate>) {
        let sequence = entry.sequence;
        let Some(index) = self.position(sequence) else {
            updates.extend(samples.iter().map(|_| SequenceUpdate::Gone { sequence }));
            return;
        };
        let running = &mut self.running[index];
        let first_update = updates.len();
        updates.extend(samples.iter().map(|sample| {
            match sample.token.map(|token| (token, running.append(token))) {
                None => SequenceUpdate::Failed { sequence },
                Some((token, None)) => SequenceUpdate::Appended { sequence, token },
                Some((token, Some(finished))) => SequenceUpdate::Finished { sequence, token, finished },
            }
        }));
        let accepted = samples.len().saturating_sub(1);
        running.advance(entry.start + entry.tokens.len() - entry.draft + accepted);
        running.publish(&mut self.pool, self.config.block_size);
        running.judge(samples.iter().filter(|sample| sample.token.is_some()).count());
        self.waiting.charge(running.standing.tenant, accepted);
        self.drafts += u64::from(entry.draft > 0);
        self.draft_tokens += entry.draft as u64;
        self.accepted_tokens += accepted as u64;
        match updates[first_update..].last() {
            None | Some(SequenceUpdate::Appended { .. }) => return,
            // Whatever broke its logits may lie in its blocks.
            Some(SequenceUpdate::Failed { .. }) => self.pool.disown(self.running[index].blocks()),
            Some(SequenceUpdate::Finished { .. } | SequenceUpdate::Gone { .. }) => {}
        }
        self.end(index);
    }

    /// Ends `running[index]`.
    fn end(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        sequence.release(&mut self.pool);
        self.retire(&sequence);
    }

    /// Lets the runner know, if it ever heard of the sequence, that it can forget it.
    fn retire(&mut self, sequence: &Sequence) {
        self.waiting.leave(sequence.standing.tenant);
        if sequence.planned() {
            self.retired.push(sequence.id);
        }
    }

    /// Where a running sequence is.
    fn position(&self, id: SequenceId) -> Option<usize> {
        self.running.iter().position(|sequence| sequence.id == id)
    }
}

/// Whether `samples` can be what came of `entry`: none if it does not sample, else the draft as far as it was right, and one
/// token more or a failure.
fn answers(entry: &PlanEntry, samples: &[Sample]) -> bool {
    let Some((_, accepted)) = samples.split_last() else { return !entry.samples };
    let agrees = |(sample, draft): (&Sample, &TokenId)| sample.token == Some(*draft);
    entry.samples && accepted.len() <= entry.draft && accepted.iter().zip(entry.draft_tokens()).all(agrees)
}
