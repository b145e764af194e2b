//! Constraints on a model that has no logits: what it wants to say is by far the likeliest, all else is noise.

use kimi_tokens::TokenId;

use super::answer::mix;
use crate::{ConstraintState, EngineFailure, NewSequence};

/// A constraint and how many tokens it knows.
#[derive(Debug)]
pub(super) struct Constrained {
    state: ConstraintState,
    vocabulary_size: usize,
}

impl Constrained {
    /// `None` when nothing constrains the sequence.
    pub(super) fn new(new: &NewSequence) -> Option<Self> {
        let state = ConstraintState::new(new);
        let vocabulary_size = new.constraint.guide.as_ref().map_or(0, |guide| guide.vocabulary_size());
        state.is_active().then_some(Self { state, vocabulary_size })
    }

    /// The wanted token if it is allowed, else one that is, chosen by a hash.
    pub(super) fn choose(&mut self, wanted: TokenId, index: usize) -> Result<TokenId, EngineFailure> {
        let size = self.vocabulary_size.max(wanted as usize + 1);
        let noise = |token: usize| (mix(((index << 32) | token) as u64) >> 40) as f32;
        let mut logits: Vec<f32> = (0..size).map(noise).collect();
        logits[wanted as usize] = f32::MAX;
        self.state.restrict(&mut logits)?;
        let best = (0..size).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or_default();
        self.state.accept(best as TokenId)
    }
}
