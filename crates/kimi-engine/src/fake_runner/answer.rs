//! What a fake request is answered with: its tokens, how slowly they come, and how they break off.

use std::time::Duration;

use kimi_tokens::TokenId;

use crate::TokenLogprobs;

/// An answer of a [`FakeRunner`](super::FakeRunner): decided once, when its request is first computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeAnswer {
    /// What is said.
    pub tokens: FakeTokens,
    /// The step that samples the first token takes at least this long, for everybody in it, as a long prompt would make it.
    pub first_token_time: Duration,
    /// Every step that samples a later token takes at least this long, for everybody in it.
    pub token_time: Duration,
    /// How the answer breaks off, if it does.
    pub failure: Option<FakeFailure>,
}

/// Where the tokens of an answer come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FakeTokens {
    /// These, and then those from `repeat_from` on again and again. End a script with a stop token to end the generation.
    Script {
        /// In order.
        tokens: Vec<TokenId>,
        /// An index into `tokens`; the last token is repeated when it is beyond them.
        repeat_from: usize,
    },
    /// A hash of `state` and the number of tokens so far, below `vocabulary_size`.
    Hash {
        /// Equal states give equal answers.
        state: u64,
        /// Ids are below this.
        vocabulary_size: u32,
    },
}

/// A failure on order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeFailure {
    /// It happens instead of the token with this index.
    pub after_tokens: usize,
    /// What happens.
    pub kind: FakeFailureKind,
}

/// What can be made to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FakeFailureKind {
    /// The logits are not finite: the request fails, nobody else.
    NonFinite,
    /// The step fails with this message: every request fails and the engine ends.
    Step(String),
    /// The engine thread panics with this message: every request fails and the engine ends.
    Panic(String),
}

impl FakeAnswer {
    /// These tokens as fast as possible, then the last one again and again.
    pub fn script(tokens: Vec<TokenId>) -> Self {
        let repeat_from = tokens.len();
        Self::from_tokens(FakeTokens::Script { tokens, repeat_from })
    }

    /// Tokens as fast as possible, without a failure.
    pub fn from_tokens(tokens: FakeTokens) -> Self {
        Self { tokens, first_token_time: Duration::ZERO, token_time: Duration::ZERO, failure: None }
    }

    /// How long the step that samples the token with this index takes at least.
    pub(super) fn time_of(&self, index: usize) -> Duration {
        if index == 0 { self.first_token_time } else { self.token_time }
    }

    /// What happens instead of the token with this index.
    pub(super) fn failure_at(&self, index: usize) -> Option<&FakeFailureKind> {
        self.failure.as_ref().filter(|failure| failure.after_tokens == index).map(|failure| &failure.kind)
    }
}

impl FakeTokens {
    /// The token with this index.
    pub(super) fn token(&self, index: usize) -> TokenId {
        match self {
            Self::Script { tokens, .. } if tokens.is_empty() => 0,
            Self::Script { tokens, repeat_from } => {
                let start = (*repeat_from).min(tokens.len() - 1);
                let index = if index < tokens.len() {
                    index
                } else {
                    start + (index - tokens.len()) % (tokens.len() - start)
                };
                tokens[index]
            }
            Self::Hash { state, vocabulary_size } => {
                (mix(state.wrapping_add(index as u64)) % u64::from(*vocabulary_size)) as TokenId
            }
        }
    }
}

/// A hash of some numbers: the same ones give the same.
pub(super) fn hash(seed: u64, tokens: &[TokenId]) -> u64 {
    tokens.iter().fold(seed, |state, token| mix(state ^ u64::from(*token)))
}

/// The finalizer of `SplitMix64` (Steele, Lea and Flood 2014): spreads every input bit over the output.
pub(super) fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// The token at -0.25 and then the smallest other ids, each one less likely.
pub(super) fn logprobs(token: TokenId, count: usize) -> TokenLogprobs {
    let others = (0..).filter(|id| *id != token);
    let ids = std::iter::once(token).chain(others).take(count);
    let top = ids.enumerate().map(|(rank, id)| (id, -0.25 - rank as f32)).collect();
    TokenLogprobs { token: -0.25, top }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_repeats_its_end() {
        let say = |repeat_from| {
            let tokens = FakeTokens::Script { tokens: vec![1, 2, 3], repeat_from };
            (0..8).map(|index| tokens.token(index)).collect::<Vec<_>>()
        };
        assert_eq!(say(3), [1, 2, 3, 3, 3, 3, 3, 3]);
        assert_eq!(say(1), [1, 2, 3, 2, 3, 2, 3, 2]);
        assert_eq!(say(0), [1, 2, 3, 1, 2, 3, 1, 2]);
    }
}
