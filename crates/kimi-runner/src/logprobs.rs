//! Log probabilities of the unfiltered distribution: before penalties, bias, temperature and filters.

use kimi_engine::TokenLogprobs;
use kimi_tokens::TokenId;

use crate::{filters::top_n, softmax::log_sum_exp};

/// The log-softmax of one row, computed lazily: the normalizer once, then any token by a subtraction.
pub(crate) struct LogSoftmax<'a> {
    logits: &'a [f32],
    normalizer: f64,
}

impl<'a> LogSoftmax<'a> {
    /// `max` as [`finite_max`](crate::softmax::finite_max) gives it for these logits.
    pub(crate) fn new(logits: &'a [f32], max: f32) -> Self {
        Self { logits, normalizer: log_sum_exp(logits, max) }
    }

    /// Natural log of the probability of `token`, which must lie in the vocabulary.
    pub(crate) fn of(&self, token: TokenId) -> f32 {
        (f64::from(self.logits[token as usize]) - self.normalizer) as f32
    }

    /// The `n` most likely tokens, descending; the lower id first among equals.
    pub(crate) fn top(&self, n: usize) -> Vec<(TokenId, f32)> {
        top_n(self.logits, n).into_iter().map(|ranked| (ranked.token, self.of(ranked.token))).collect()
    }

    /// What a request that asked for `n` alternatives is told about `token`.
    pub(crate) fn report(&self, token: TokenId, n: usize) -> TokenLogprobs {
        TokenLogprobs { token: self.of(token), top: self.top(n) }
    }
}
