//! What a scheduler is given and what it tells about itself: sizes, limits, load.

use kimi_tokens::{PromptMedium, TokenId};

use crate::{CacheScope, Speculation};

/// Positions of prompts whose logits one step gives, beside one for each sequence: with a vocabulary of 163,840 they take 84 MB.
pub const MAX_SCORES: usize = 128;

/// The sizes a scheduler plans within. Resolved once at start; nothing changes them afterwards. Each size is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Positions that one block of the cache holds.
    pub block_size: usize,
    /// Blocks of the cache.
    pub block_count: usize,
    /// Tokens computed in one step, all sequences together. A longer prompt is computed in chunks.
    pub max_batch_tokens: usize,
    /// Sequences that run at the same time.
    pub max_sequences: usize,
    /// Tokens of one sequence, prompt and generated together.
    pub max_context: usize,
    /// Whether and when tokens are computed that may turn out wrong.
    pub speculation: Option<Speculation>,
}

impl SchedulerConfig {
    /// Tokens one sequence can really have: `max_context`, or the whole cache where that is smaller.
    pub fn context_limit(&self) -> usize {
        self.max_context.min(self.block_count * self.block_size)
    }

    /// The largest prompt that leaves room for one generated token.
    pub fn max_prompt_tokens(&self) -> usize {
        self.context_limit().saturating_sub(1)
    }
}

/// A sequence as it arrives.
#[derive(Clone, Debug, Default)]
pub struct SequenceRequest<'a> {
    /// The prompt. At least one token.
    pub tokens: &'a [TokenId],
    /// Images and clips in the order of their positions: blocks they lie in are shared only where the same is seen.
    pub media: &'a [PromptMedium],
    /// When it must end.
    pub limits: Limits,
    /// Its place among the others.
    pub standing: Standing,
    /// Where it finds and leaves computed blocks; `None` keeps it out of the prefix cache.
    pub scope: Option<CacheScope>,
    /// Whether the logits of the prompt's own positions are wanted. They are not in the prefix cache, so nothing is taken from
    /// there before they were computed.
    pub scores_prompt: bool,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Lower goes first, as in vLLM, and takes blocks from higher ones. Nothing keeps an endless stream of urgent
    /// sequences from holding up the others.
    pub priority: i32,
    /// Sequences of the same priority are admitted so that tenants get their share of computed tokens.
    pub tenant: Tenant,
}

/// Whoever is to get a fair share: an API key, say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenant(pub u64);

/// When a generation must end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Generate at most this many tokens; 0 counts as 1, since a sequence ends with a token.
    pub max_tokens: usize,
    /// Sampling one of these ends the sequence; the stop token belongs to it.
    pub stop_tokens: Vec<TokenId>,
}

/// A snapshot of how busy the scheduler is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Sequences that hold no blocks yet, or were preempted.
    pub waiting: usize,
    /// Sequences that hold blocks.
    pub running: usize,
    /// Blocks that belong to a running sequence.
    pub blocks_used: usize,
    /// Blocks that belong to nobody. `blocks_used + blocks_free` is the size of the cache.
    pub blocks_free: usize,
    /// Of the free blocks, those whose content can still be found.
    pub blocks_kept: usize,
    /// Blocks in the second tier.
    pub blocks_stored: usize,
    /// Tokens that came back from it, since the start.
    pub restored_tokens: u64,
    /// How often a block could not be brought back, since the start.
    pub failed_restores: u64,
    /// Prompt tokens that were looked up in the prefix cache, since the start.
    pub prefix_queries: u64,
    /// Of these, tokens that were there.
    pub prefix_hits: u64,
    /// How often a sequence lost its blocks to an earlier one, since the start.
    pub preemptions: u64,
    /// How often tokens were computed that a proposal said would come, since the start.
    pub drafts: u64,
    /// Tokens of these drafts.
    pub draft_tokens: u64,
    /// Of these, tokens that did come.
    pub accepted_tokens: u64,
}
