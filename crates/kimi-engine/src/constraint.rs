//! What may come next: the seam to whatever constrains an answer, and its state while the answer is generated.

use std::fmt;
use std::sync::Arc;

use kimi_tokens::TokenId;
use thiserror::Error;

use crate::{EngineFailure, NewSequence};

/// Limits one answer, token by token. Made for one sequence, in the thread that samples it.
pub trait TokenGuide: Send + fmt::Debug {
    /// Sets the logits of tokens that must not come next to `-inf` and leaves at least one finite. `tokens_left` counts
    /// the token that is about to be chosen.
    fn restrict(&mut self, logits: &mut [f32], tokens_left: usize) -> Result<(), GuideError>;

    /// Hears which token was drawn and says which one is used: another one when after the drawn one the answer could no
    /// longer be closed with the tokens that are left.
    fn accept(&mut self, token: TokenId, tokens_left: usize) -> Result<TokenId, GuideError>;
}

/// Makes the guide of a sequence. Shared and immutable, so that a request can be passed between threads and repeated.
pub trait GuideSource: Send + Sync + fmt::Debug {
    /// A guide for an answer of which nothing was generated.
    fn start(&self) -> Box<dyn TokenGuide>;

    /// How many tokens the guide knows.
    fn vocabulary_size(&self) -> usize;
}

/// A guide could not go on: its grammar became too complex. Ends the request it belongs to.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct GuideError(pub String);

/// What constrains the tokens of a request beside its sampling parameters.
#[derive(Clone, Debug, Default)]
pub struct Constraint {
    /// Stop tokens are not chosen before so many tokens were generated.
    pub min_tokens: usize,
    /// What the answer must look like.
    pub guide: Option<Arc<dyn GuideSource>>,
}

/// A [`Constraint`] at work. Runners keep one for each sequence.
#[derive(Debug)]
pub struct ConstraintState {
    guide: Option<Box<dyn TokenGuide>>,
    min_tokens: usize,
    stop_tokens: Vec<TokenId>,
    max_tokens: usize,
    generated: usize,
}

impl ConstraintState {
    /// The state of a sequence that has generated nothing yet.
    pub fn new(sequence: &NewSequence) -> Self {
        let Constraint { min_tokens, guide } = &sequence.constraint;
        Self {
            guide: guide.as_ref().map(|source| source.start()),
            min_tokens: *min_tokens,
            stop_tokens: sequence.stop_tokens.clone(),
            max_tokens: sequence.max_tokens,
            generated: 0,
        }
    }

    /// Whether [`restrict`](Self::restrict) may change anything from now on.
    pub fn is_active(&self) -> bool {
        self.guide.is_some() || self.generated < self.min_tokens
    }

    /// Sets the logits of tokens that must not come next to `-inf`.
    pub fn restrict(&mut self, logits: &mut [f32]) -> Result<(), EngineFailure> {
        if self.generated < self.min_tokens {
            for &token in &self.stop_tokens {
                if let Some(logit) = logits.get_mut(token as usize) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        let left = self.tokens_left();
        // A guide has the last word: an answer that must end here ends, whatever the least number of tokens is.
        self.guide.as_mut().map_or(Ok(()), |guide| Ok(guide.restrict(logits, left)?))
    }

    /// Books the drawn token and returns the one to use.
    pub fn accept(&mut self, token: TokenId) -> Result<TokenId, EngineFailure> {
        let left = self.tokens_left();
        self.generated += 1;
        self.guide.as_mut().map_or(Ok(token), |guide| Ok(guide.accept(token, left)?))
    }

    fn tokens_left(&self) -> usize {
        self.max_tokens.saturating_sub(self.generated)
    }
}
