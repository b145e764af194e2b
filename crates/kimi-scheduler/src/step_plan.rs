//! The plan of one step, as plain data.

use std::{ops::Range, sync::Arc};

use kimi_tokens::TokenId;

use crate::TierPlan;

/// A sequence's identity for its whole life. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// A block of the paged cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// What one step computes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// The sequences that advance, in arrival order. May be empty beside work for the second tier.
    pub entries: Vec<PlanEntry>,
    /// Sequences of earlier plans that ended since the last one: the runner forgets their state.
    pub retired: Vec<SequenceId>,
    /// What moves between the cache and its second tier first.
    pub tier: TierPlan,
}

impl StepPlan {
    /// Whether there is nothing to do; such a plan is not run.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.tier.is_empty()
    }
}

/// One sequence's share of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanEntry {
    /// Whose tokens.
    pub sequence: SequenceId,
    /// Position of the first token; everything before it is in the cache. 0 again after a preemption: the sequence then
    /// computes its prompt and what it generated so far anew, in other blocks.
    pub start: usize,
    /// The tokens to compute, at positions `start..start + tokens.len()`. Never empty; the first is no draft.
    pub tokens: Vec<TokenId>,
    /// So many of the last tokens are a draft: guesses of what will be sampled after the token before them.
    pub draft: usize,
    /// The sequence's block table: position `p` lies in `blocks[p / block_size]`. Covers every token of this entry.
    pub blocks: Arc<[BlockId]>,
    /// Of `tokens`, those after which the prompt goes on and whose logits are wanted: they tell how likely the next one was. Each
    /// position of a prompt is in one entry's `scores`, whatever is computed twice. Empty unless it was asked for.
    pub scores: Range<usize>,
    /// Whether the last known token's logits are sampled (false while a prompt is only partly computed). While a sample is
    /// what the draft says, the logits of that draft token are sampled, too.
    pub samples: bool,
}

impl PlanEntry {
    /// The tokens that may turn out wrong.
    pub fn draft_tokens(&self) -> &[TokenId] {
        &self.tokens[self.tokens.len() - self.draft..]
    }
}
