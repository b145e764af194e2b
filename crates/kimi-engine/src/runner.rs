//! The seam to the model: plans go down, sampled tokens come up.

use std::sync::Arc;

use kimi_scheduler::{SequenceId, StepPlan, TierContents, TierReport};
use kimi_tokens::{PromptMedium, TokenId};
use thiserror::Error;

use crate::{Constraint, EngineFailure, SampledToken, Sampling, TokenLogprobs};

/// Runs steps of the model. Implemented over tensors by `kimi-runner` and without a model by [`FakeRunner`](crate::FakeRunner).
pub trait ModelRunner: Send {
    /// Starts a step.
    fn submit(&mut self, batch: Arc<StepBatch>) -> Result<(), RunnerError>;
    /// Waits for the step that was started last.
    fn collect(&mut self) -> Result<StepOutput, RunnerError>;
    /// What the second tier of its cache holds, asked once at start; `None` when it has none.
    fn second_tier(&mut self) -> Option<TierContents> {
        None
    }
    /// Whether prompts may carry images and clips, asked once at start.
    fn takes_media(&self) -> bool {
        false
    }
}

/// One step's work.
#[derive(Debug)]
pub struct StepBatch {
    /// Which tokens of which sequences are computed, where their cache blocks are, and what the second tier does first.
    /// Never empty; without entries, there is work for the tier.
    pub plan: StepPlan,
    /// Sequences that appear for the first time, with what the sampler must know of them, in the plan's order. A sequence
    /// that was preempted and comes back is not new.
    pub new_sequences: Vec<NewSequence>,
}

/// A sequence's sampling state begins here and ends when a plan lists it in `retired`.
#[derive(Debug)]
pub struct NewSequence {
    /// Its id in plans.
    pub id: SequenceId,
    /// How its tokens are chosen.
    pub sampling: Sampling,
    /// How many top log probabilities to report, if any.
    pub logprobs: Option<usize>,
    /// The same for tokens of the prompt.
    pub prompt_logprobs: Option<usize>,
    /// The prompt, whole even when the plan computes only its beginning: for penalties that look at it.
    pub prompt: Arc<[TokenId]>,
    /// What is seen at some of the prompt's positions, in their order.
    pub media: Vec<PromptMedium>,
    /// What its tokens must look like.
    pub constraint: Constraint,
    /// At most this many tokens will be sampled.
    pub max_tokens: usize,
    /// Tokens that end it.
    pub stop_tokens: Vec<TokenId>,
}

/// What was sampled, in the plan's order: for each entry that samples a token or a failure, and one more behind it for each
/// token of its draft that was sampled indeed.
#[derive(Debug, Default)]
pub struct StepOutput {
    /// `(sequence, its next token or why it failed)`. After a failure there is nothing more of that sequence.
    pub sampled: Vec<(SequenceId, Result<SampledToken, EngineFailure>)>,
    /// For each entry whose plan has `scores`, in the plan's order: of each of them, how likely the prompt's next token was; or
    /// why the sequence failed.
    pub scored: Vec<(SequenceId, Result<Vec<TokenLogprobs>, EngineFailure>)>,
    /// What the second tier did.
    pub tier: TierReport,
}

/// A failed step. Fatal: every stream fails and the process ends, since the cache can no longer be trusted.
#[derive(Clone, Debug, Error)]
#[error("{0}")]
pub struct RunnerError(pub String);
