//! The scheduler: who computes what in the next step, and what the samples of a step mean.
//!
//! The rule, which is vLLM's: *each step hands out a token budget so that every sequence's `computed` catches up with its
//! length; running sequences in arrival order first, then waiting ones; when blocks run out, preempt from the tail.* There
//! is no prefill phase and no decode phase. A plan entry is made for the head while only the tail is preempted, so an entry
//! is never taken back.

use std::collections::VecDeque;

use crate::block_pool::BlockPool;
use crate::sequence::Sequence;
use crate::{
    BlockId, Limits, Load, PlanEntry, Rejection, Sample, SchedulerConfig, SequenceId, SequencePrompt,
    SequenceUpdate, StepPlan,
};

/// Owns every sequence and every block. Pure: no clock, no thread, no randomness; the same calls give the same plans.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: SchedulerConfig,
    pub(crate) pool: BlockPool,
    /// Sequences that hold blocks, in arrival order. All of them arrived before anything in `waiting`.
    pub(crate) running: Vec<Sequence>,
    /// Sequences that hold nothing, in arrival order.
    pub(crate) waiting: VecDeque<Sequence>,
    /// Ended since the last plan with entries, and known to the runner.
    pub(crate) retired: Vec<SequenceId>,
    preemptions: u64,
    prefix_queries: u64,
    prefix_hits: u64,
    /// The largest id so far: ids ascend, so they order arrivals.
    last_id: Option<SequenceId>,
    /// Whether a plan waits for its `commit`.
    in_flight: bool,
}

impl Scheduler {
    /// A scheduler with an empty cache.
    ///
    /// # Panics
    /// When a size in `config` is 0 or the block count does not fit a [`BlockId`](crate::BlockId).
    pub fn new(config: SchedulerConfig) -> Self {
        let SchedulerConfig { block_size, block_count, max_batch_tokens, max_sequences, max_context } =
            config;
        for size in [block_size, block_count, max_batch_tokens, max_sequences, max_context] {
            assert!(size > 0, "every size must be at least 1: {config:?}");
        }
        assert!(u32::try_from(block_count).is_ok(), "a block id has 32 bits: {config:?}");
        Self {
            config,
            pool: BlockPool::new(block_count),
            running: Vec::new(),
            waiting: VecDeque::new(),
            retired: Vec::new(),
            preemptions: 0,
            prefix_queries: 0,
            prefix_hits: 0,
            last_id: None,
            in_flight: false,
        }
    }

    /// Queues a sequence behind all others.
    ///
    /// # Panics
    /// When `id` is not larger than every earlier one: ids are also arrival numbers.
    pub fn add(
        &mut self,
        id: SequenceId,
        prompt: SequencePrompt<'_>,
        limits: Limits,
    ) -> Result<(), Rejection> {
        assert!(self.last_id < Some(id), "ids ascend: {id:?} after {:?}", self.last_id);
        let limit = self.config.max_prompt_tokens();
        let prompt_tokens = prompt.tokens.len();
        if prompt_tokens == 0 {
            return Err(Rejection::Empty);
        }
        if prompt_tokens > limit {
            return Err(Rejection::TooLong { prompt_tokens, limit });
        }
        self.last_id = Some(id);
        self.waiting.push_back(Sequence::new(id, prompt, limits, self.config.context_limit()));
        Ok(())
    }

    /// Ends a sequence and frees its blocks at once; one that is not known any more is ignored.
    ///
    /// Between a plan and its commit this is allowed too: the freed blocks are not handed out before the next plan.
    pub fn cancel(&mut self, id: SequenceId) {
        if let Some(index) = self.position(id) {
            self.end(index);
        } else if let Ok(index) = self.waiting.binary_search_by_key(&id, |sequence| sequence.id)
            && let Some(sequence) = self.waiting.remove(index)
        {
            self.retire(&sequence);
        }
    }

    /// Hop 5 of 9. Decides what the next step computes.
    ///
    /// A plan without entries means that there is nothing to do, and is not to be run or committed; what was retired is
    /// then told with the next plan. Otherwise [`commit`](Self::commit) must follow before the next plan.
    ///
    /// # Panics
    /// When the last plan with entries was not committed.
    pub fn plan_step(&mut self) -> StepPlan {
        assert!(!self.in_flight, "the last plan was not committed");
        let mut budget = self.config.max_batch_tokens;
        let mut entries = Vec::new();
        // Running ones first. A step that preempted admits nobody: what the preemption left over is less than its victim,
        // now first in the queue, held and needs.
        while budget > 0 && (entries.len() < self.running.len() || self.admit()) {
            let Some(entry) = self.plan_running(entries.len(), budget) else { break };
            budget -= entry.tokens.len();
            entries.push(entry);
        }
        if entries.is_empty() {
            return StepPlan::default();
        }
        self.in_flight = true;
        StepPlan { entries, retired: std::mem::take(&mut self.retired) }
    }

    /// Hop 8a of 9. Books a step that ran: positions are computed, tokens appended, ended sequences retired.
    ///
    /// `samples` has one item for each entry of `plan` that samples, in the plan's order, and so has the answer.
    ///
    /// # Panics
    /// When `samples` is anything else.
    pub fn commit(&mut self, plan: &StepPlan, samples: &[Sample]) -> Vec<SequenceUpdate> {
        assert!(
            plan.entries
                .iter()
                .filter(|e| e.samples)
                .map(|e| e.sequence)
                .eq(samples.iter().map(|s| s.sequence)),
            "samples do not answer the plan"
        );
        self.in_flight = false;
        for entry in &plan.entries {
            if let Some(index) = self.position(entry.sequence) {
                let sequence = &mut self.running[index];
                sequence.advance(entry.start + entry.tokens.len());
                sequence.publish(&mut self.pool, self.config.block_size);
            }
        }
        samples.iter().map(|sample| self.book(*sample)).collect()
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        Load {
            waiting: self.waiting.len(),
            running: self.running.len(),
            blocks_used: self.pool.total() - self.pool.free(),
            blocks_free: self.pool.free(),
            blocks_kept: self.pool.kept(),
            prefix_queries: self.prefix_queries,
            prefix_hits: self.prefix_hits,
            preemptions: self.preemptions,
        }
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

    /// Takes the blocks of the sequence that arrived last. It will compute its tokens again, the generated ones included.
    fn preempt_tail(&mut self) {
        let mut tail = self.running.pop().expect("invariant: somebody runs behind the one that needs blocks");
        tail.release(&mut self.pool);
        self.preemptions += 1;
        self.waiting.push_front(tail);
    }

    /// Moves the first of the queue to the running ones if it fits. Never anybody else: admission is first come, first
    /// served, or a long prompt would wait for ever.
    ///
    /// It fits when its tokens and one more do, with a block to spare for each running sequence; without that margin it
    /// would often be preempted at once. Blocks that the prefix cache finds with a running sequence cost nothing. When
    /// nobody runs it always fits, since `add` refused what can not.
    fn admit(&mut self) -> bool {
        let block_size = self.config.block_size;
        if self.running.len() == self.config.max_sequences {
            return false;
        }
        let Some(first) = self.waiting.front_mut() else { return false };
        let found: Vec<BlockId> = self.pool.find(first.prefix_keys(block_size)).collect();
        let shared = found.iter().filter(|block| !self.pool.is_free(**block)).count();
        let needed = first.missing_blocks(first.len() + 1, block_size) - shared + self.running.len();
        if needed > self.pool.free() {
            return false;
        }
        let (queried, hit) = first.adopt(&found, &mut self.pool, block_size);
        self.prefix_queries += queried as u64;
        self.prefix_hits += hit as u64;
        self.running.extend(self.waiting.pop_front());
        true
    }

    /// What one sample does to its sequence.
    fn book(&mut self, Sample { sequence, token }: Sample) -> SequenceUpdate {
        let Some(index) = self.position(sequence) else {
            return SequenceUpdate::Gone { sequence };
        };
        let Some(token) = token else {
            // Whatever broke its logits may lie in its blocks.
            self.pool.disown(self.running[index].blocks());
            self.end(index);
            return SequenceUpdate::Failed { sequence };
        };
        let Some(finished) = self.running[index].append(token) else {
            return SequenceUpdate::Appended { sequence, token };
        };
        self.end(index);
        SequenceUpdate::Finished { sequence, token, finished }
    }

    /// Ends `running[index]`.
    fn end(&mut self, index: usize) {
        let mut sequence = self.running.remove(index);
        sequence.release(&mut self.pool);
        self.retire(&sequence);
    }

    /// Lets the runner know, if it ever heard of the sequence, that it can forget it.
    fn retire(&mut self, sequence: &Sequence) {
        if sequence.planned() {
            self.retired.push(sequence.id);
        }
    }

    /// Where a running sequence is; they are in the order of ids.
    fn position(&self, id: SequenceId) -> Option<usize> {
        self.running.binary_search_by_key(&id, |sequence| sequence.id).ok()
    }
}
