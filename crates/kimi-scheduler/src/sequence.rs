//! One request's tokens and how far they are computed.

use std::{ops::Range, sync::Arc};

use kimi_tokens::TokenId;

use crate::block_pool::BlockPool;
use crate::prefix::{BlockKey, KeyChain};
use crate::speculation::Speculator;
use crate::{BlockId, FinishReason, Finished, PlanEntry, SequenceId, SequenceRequest, Standing};

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
    pub(crate) standing: Standing,
    tokens: Vec<TokenId>,
    prompt_tokens: usize,
    /// Generated tokens at which the sequence ends, the context limit already applied.
    max_tokens: usize,
    stop_tokens: Vec<TokenId>,
    /// Positions `0..computed` are in the cache.
    computed: usize,
    blocks: Vec<BlockId>,
    /// The names of its full blocks; `None` outside the prefix cache.
    keys: Option<KeyChain>,
    /// Its first so many blocks can be found by others, or hold what others can find elsewhere.
    published: usize,
    /// Prompt tokens that came from the prefix cache when it was admitted first.
    cached_tokens: usize,
    /// Positions of the prompt whose logits are still wanted; they lead to the prompt's last token.
    unscored: Range<usize>,
    /// `blocks` as plans carry it; made anew when the table grows, not every step.
    table: Arc<[BlockId]>,
    /// Whether a plan has named it, so that the runner holds state for it.
    planned: bool,
    /// Proposals of what it may say next; `None` without speculation.
    speculator: Option<Speculator>,
}

impl Sequence {
    /// A sequence with nothing computed. Its prompt is shorter than `context_limit`.
    pub(crate) fn new(
        id: SequenceId,
        request: SequenceRequest<'_>,
        context_limit: usize,
        speculator: Option<Speculator>,
    ) -> Self {
        let SequenceRequest { tokens, media, limits, standing, scope, scores_prompt } = request;
        let prompt_tokens = tokens.len();
        Self {
            id,
            standing,
            tokens: tokens.to_vec(),
            prompt_tokens,
            max_tokens: limits.max_tokens.clamp(1, context_limit - prompt_tokens),
            stop_tokens: limits.stop_tokens,
            computed: 0,
            blocks: Vec::new(),
            keys: scope.map(|scope| KeyChain::new(scope, media)),
            published: 0,
            cached_tokens: 0,
            unscored: 0..if scores_prompt { prompt_tokens - 1 } else { 0 },
            table: Arc::default(),
            planned: false,
            speculator,
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

    /// Whether somebody reads along: its last token was sampled, and computing it gives the next one.
    pub(crate) fn is_answering(&self) -> bool {
        self.tokens.len() > self.prompt_tokens && self.uncomputed() == 1
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

    /// The names of the blocks it could begin with. At least one token is left over: the next one is sampled from what
    /// computing it gives. So are those whose logits are wanted.
    pub(crate) fn prefix_keys(&mut self, block_size: usize) -> &[BlockKey] {
        let known = if self.unscored.is_empty() { self.tokens.len() - 1 } else { self.unscored.start };
        let count = known / block_size;
        self.keys.as_mut().map_or(&[], |keys| keys.first(count, &self.tokens, block_size))
    }

    /// Begins with `found`, which hold its first positions; it holds no block yet. Returns how many tokens were looked
    /// up and how many were there.
    pub(crate) fn adopt(
        &mut self,
        found: &[BlockId],
        pool: &mut BlockPool,
        block_size: usize,
    ) -> (usize, usize) {
        for block in found {
            pool.share(*block, &mut self.blocks);
        }
        self.table = self.blocks.as_slice().into();
        self.published = found.len();
        self.computed = found.len() * block_size;
        if self.planned || self.keys.is_none() {
            // What comes back after a preemption is no saving that a client should hear of.
            return (0, 0);
        }
        self.cached_tokens = self.computed;
        (self.prompt_tokens, self.cached_tokens)
    }

    /// Lets others find the blocks that are full and computed.
    pub(crate) fn publish(&mut self, pool: &mut BlockPool, block_size: usize) {
        let full = self.computed / block_size;
        let Some(keys) = self.keys.as_mut().filter(|_| full > self.published) else { return };
        let keys = keys.first(full, &self.tokens, block_size);
        for (block, key) in self.blocks.iter().zip(keys).skip(self.published) {
            pool.publish(*block, *key);
        }
        self.published = full;
    }

    /// Takes `count` blocks from the pool.
    pub(crate) fn grow(&mut self, count: usize, pool: &mut BlockPool) {
        if count > 0 {
            pool.take(count, &mut self.blocks);
            self.table = self.blocks.as_slice().into();
        }
    }

    /// Gives every block back: the only way blocks leave a sequence. What was computed is lost unless the prefix cache
    /// still has it when the sequence comes back.
    pub(crate) fn release(&mut self, pool: &mut BlockPool) {
        pool.release(&mut self.blocks);
        self.table = Arc::default();
        self.computed = 0;
        self.published = 0;
    }

    /// How many of the next `count` tokens can be computed for at most so many scores; 1 at least.
    pub(crate) fn within_scores(&self, count: usize, scores: usize) -> usize {
        let wanted = self.wanted_scores(count);
        if wanted.len() <= scores { count } else { (wanted.start + scores).max(1) }
    }

    /// Of the next `count` tokens, those whose logits are wanted as scores.
    fn wanted_scores(&self, count: usize) -> Range<usize> {
        let [first, end] = [self.unscored.start, self.unscored.end.min(self.computed + count)]
            .map(|position| position.saturating_sub(self.computed));
        first.min(end)..end
    }

    /// The plan entry that computes the next `count` tokens; their blocks are held.
    pub(crate) fn entry(&mut self, count: usize) -> PlanEntry {
        self.planned = true;
        if let Some(speculator) = &mut self.speculator {
            speculator.read(&self.tokens);
        }
        let end = self.computed + count;
        PlanEntry {
            sequence: self.id,
            start: self.computed,
            tokens: self.tokens[self.computed..end].to_vec(),
            draft: 0,
            blocks: Arc::clone(&self.table),
            scores: self.wanted_scores(count),
            samples: end == self.tokens.len(),
        }
    }

    /// Adds a draft of at most `most` tokens to an entry that samples, if one is worth rows that cost `cost` steps each. New
    /// blocks are taken from the first `free_blocks` of the pool. Never more than the sequence may still say before its
    /// last token, after which nothing is sampled.
    pub(crate) fn speculate(
        &mut self,
        entry: &mut PlanEntry,
        most: usize,
        cost: f64,
        (free_blocks, block_size): (usize, usize),
        pool: &mut BlockPool,
    ) {
        let Some(speculator) = &mut self.speculator else { return };
        let end = entry.start + entry.tokens.len();
        let left = self.max_tokens - (self.tokens.len() - self.prompt_tokens) - 1;
        let room = (self.blocks.len() + free_blocks) * block_size - end;
        let draft = speculator.draft(&self.tokens, &self.stop_tokens, most.min(left).min(room), cost);
        entry.draft = draft.len();
        entry.tokens.extend_from_slice(draft);
        self.grow(self.missing_blocks(entry.tokens.len(), block_size), pool);
        entry.blocks = Arc::clone(&self.table);
    }

    /// Notes that an entry ran: positions up to `end`, which have their tokens by now, are in the cache. A draft's positions
    /// behind them hold what is not the sequence's; they are computed over.
    pub(crate) fn advance(&mut self, end: usize) {
        self.computed = end;
        self.unscored.start = self.unscored.start.max(end.min(self.unscored.end));
    }

    /// Lets whoever proposed the sequence's last `count` tokens learn from them.
    pub(crate) fn judge(&mut self, count: usize) {
        if let Some(speculator) = &mut self.speculator {
            speculator.judge(&self.tokens[self.tokens.len() - count..]);
        }
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
        let Self { prompt_tokens, cached_tokens, .. } = *self;
        Some(Finished { reason, prompt_tokens, cached_tokens, completion_tokens })
    }
}
