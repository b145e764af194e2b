//! One request's tokens and how far they are computed.

use std::sync::Arc;

use kimi_tokens::TokenId;

use crate::block_pool::BlockPool;
use crate::{BlockId, FinishReason, Finished, Limits, PlanEntry, SequenceId};

/// A sequence between `add` and its end.
///
/// ```text
///  tokens   [ prompt .............. | generated ..... ]     grows by one per sample
///  computed [ in the cache ............... ) to compute     catches up with the length, then a token is sampled
///  blocks   [ b0 | b1 | b2 | ... ]                          cover at least `computed` positions
/// ```
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SequenceId,
    tokens: Vec<TokenId>,
    prompt_tokens: usize,
    /// Generated tokens at which the sequence ends, the context limit already applied.
    max_tokens: usize,
    stop_tokens: Vec<TokenId>,
    /// Positions `0..computed` are in the cache.
    computed: usize,
    blocks: Vec<BlockId>,
    /// `blocks` as plans carry it; made anew when the table grows, not every step.
    table: Arc<[BlockId]>,
    /// Whether a plan has named it, so that the runner holds state for it.
    planned: bool,
}

impl Sequence {
    /// A sequence with nothing computed. `prompt` is shorter than `context_limit`.
    pub(crate) fn new(id: SequenceId, prompt: &[TokenId], limits: Limits, context_limit: usize) -> Self {
        Self {
            id,
            tokens: prompt.to_vec(),
            prompt_tokens: prompt.len(),
            max_tokens: limits.max_tokens.clamp(1, context_limit - prompt.len()),
            stop_tokens: limits.stop_tokens,
            computed: 0,
            blocks: Vec::new(),
            table: Arc::default(),
            planned: false,
        }
    }

    /// Tokens, prompt and generated.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Positions that are in the cache.
    pub(crate) fn computed(&self) -> usize {
        self.computed
    }

    /// Tokens that must be computed before the next one can be sampled. At least 1.
    pub(crate) fn uncomputed(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// The blocks it holds, in the order of positions.
    pub(crate) fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Whether a plan has named it.
    pub(crate) fn planned(&self) -> bool {
        self.planned
    }

    /// Blocks it lacks to compute `count` more tokens.
    pub(crate) fn missing_blocks(&self, count: usize, block_size: usize) -> usize {
        (self.computed + count).div_ceil(block_size).saturating_sub(self.blocks.len())
    }

    /// Takes `count` blocks from the pool.
    pub(crate) fn grow(&mut self, count: usize, pool: &mut BlockPool) {
        if count > 0 {
            pool.take(count, &mut self.blocks);
            self.table = self.blocks.as_slice().into();
        }
    }

    /// Gives every block back. What was computed is lost: the only way blocks leave a sequence.
    pub(crate) fn release(&mut self, pool: &mut BlockPool) {
        pool.release(&mut self.blocks);
        self.table = Arc::default();
        self.computed = 0;
    }

    /// The plan entry that computes the next `count` tokens; their blocks are held.
    pub(crate) fn entry(&mut self, count: usize) -> PlanEntry {
        self.planned = true;
        let end = self.computed + count;
        PlanEntry {
            sequence: self.id,
            start: self.computed,
            tokens: self.tokens[self.computed..end].to_vec(),
            blocks: Arc::clone(&self.table),
            samples: end == self.tokens.len(),
        }
    }

    /// Notes that an entry ran: positions up to `end` are in the cache.
    pub(crate) fn advance(&mut self, end: usize) {
        self.computed = end;
    }

    /// Appends a sampled token; says how the sequence ended if this was the last one.
    pub(crate) fn append(&mut self, token: TokenId) -> Option<Finished> {
        self.tokens.push(token);
        let completion_tokens = self.tokens.len() - self.prompt_tokens;
        let reason = if self.stop_tokens.contains(&token) {
            FinishReason::Stop
        } else if completion_tokens >= self.max_tokens {
            FinishReason::Length
        } else {
            return None;
        };
        // The prefix cache will say here how many prompt tokens it had.
        Some(Finished { reason, prompt_tokens: self.prompt_tokens, cached_tokens: 0, completion_tokens })
    }
}
