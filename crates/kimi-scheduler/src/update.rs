//! What comes back from a step: samples in, updates out.

use kimi_tokens::TokenId;

use crate::SequenceId;

/// What the sampler made of one row of a plan entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The entry's sequence.
    pub sequence: SequenceId,
    /// Its next token; `None` when no token could be drawn, which ends this sequence and no other and is its last sample.
    pub token: Option<TokenId>,
}

/// What one [`Sample`] did to its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceUpdate {
    /// The token was appended and the sequence goes on.
    Appended {
        /// Whose token.
        sequence: SequenceId,
        /// The new last token.
        token: TokenId,
    },
    /// The token was appended and is the last; the blocks are free again.
    Finished {
        /// Whose token.
        sequence: SequenceId,
        /// The last token, the stop token where there was one.
        token: TokenId,
        /// Why it ended and what it cost.
        finished: Finished,
    },
    /// Sampling failed; the sequence has ended and its blocks are free again.
    Failed {
        /// The sequence that ended.
        sequence: SequenceId,
    },
    /// The sequence was cancelled while the step ran; the sample is dropped.
    Gone {
        /// The sequence that had ended before.
        sequence: SequenceId,
    },
}

/// How a generation ended and what it cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, tokens whose keys and values came from the prefix cache.
    pub cached_tokens: usize,
    /// Tokens generated, the stop token included.
    pub completion_tokens: usize,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token was sampled.
    Stop,
    /// `max_tokens` or the context limit was reached.
    Length,
}
