//! From one row of logits to a token: pure code on host floats, one state per sequence.

use std::{collections::BTreeMap, sync::Arc};

use kimi_engine::{ConstraintState, EngineFailure, NewSequence, SampledToken, Sampling, TokenLogprobs};
use kimi_tokens::TokenId;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    filters,
    logprobs::LogSoftmax,
    softmax::{exp_weights, finite_max, sum},
};

/// One sequence's sampling state: its parameters, its own random stream, and the tokens its penalties look at.
///
/// It depends on nothing but the request and the logits it is shown, so a request gets the same text whatever else is in
/// the batch.
#[derive(Debug)]
pub struct SequenceSampler {
    sampling: Sampling,
    logprobs: Option<usize>,
    /// The prompt and how many alternatives to each of its tokens are reported, if any.
    scored_prompt: Option<(Arc<[TokenId]>, usize)>,
    random: ChaCha8Rng,
    /// Tokens of the prompt and the output with how often each was generated, 0 for those of the prompt alone. Empty
    /// when no penalty is on.
    history: BTreeMap<TokenId, u32>,
    constraint: ConstraintState,
}

impl SequenceSampler {
    /// The state of a sequence that has generated nothing yet.
    pub fn new(sequence: &NewSequence) -> Self {
        let sampling = sequence.sampling.clone();
        let history = if penalizes(&sampling) {
            sequence.prompt.iter().map(|&token| (token, 0)).collect()
        } else {
            BTreeMap::new()
        };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&sampling.seed.to_le_bytes());
        Self {
            random: ChaCha8Rng::from_seed(seed),
            logprobs: sequence.logprobs,
            scored_prompt: sequence.prompt_logprobs.map(|n| (Arc::clone(&sequence.prompt), n)),
            sampling,
            history,
            constraint: ConstraintState::new(sequence),
        }
    }

    /// Hop 7b of 9. Chooses the next token from `logits` (one row, `[vocabulary]`), which are used as scratch space.
    ///
    /// In this order: log probabilities of the untouched logits if asked for; repetition, frequency and presence
    /// penalty; bias; the constraint; then the first largest logit when the temperature is 0, else temperature, top-k, top-p of what is
    /// left, min-p, and one draw from the sequence's own stream.
    ///
    /// NaN or `+inf` anywhere, or nothing but `-inf`, is [`EngineFailure::NonFiniteLogits`], never a token.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<SampledToken, EngineFailure> {
        let max = finite_max(logits).ok_or(EngineFailure::NonFiniteLogits)?;
        // Choosing overwrites the row; a copy is small beside the weights that were read to compute it.
        let untouched = self.logprobs.map(|n| (n, logits.to_vec()));
        let drawn = self.choose(logits, max)?;
        let id = self.constraint.accept(drawn)?;
        if self.penalizes() {
            *self.history.entry(id).or_insert(0) += 1;
        }
        let logprobs = untouched.map(|(n, row)| Arc::new(LogSoftmax::new(&row, max).report(id, n)));
        Ok(SampledToken { id, logprobs })
    }

    /// How likely the prompt's next tokens were (natural logs, of the unfiltered distribution) after position `first` and those
    /// behind it, whose logits are `rows`, `[vocabulary]` each.
    ///
    /// NaN or `+inf` anywhere, or nothing but `-inf` in a row, is [`EngineFailure::NonFiniteLogits`].
    pub fn score_prompt<'a>(
        &self,
        rows: impl Iterator<Item = &'a mut [f32]>,
        first: usize,
    ) -> Result<Vec<TokenLogprobs>, EngineFailure> {
        let (prompt, n) = self.scored_prompt.as_ref().map_or((&[][..], 0), |(prompt, n)| (&prompt[..], *n));
        // Rows are taken to their end, as for samples.
        let scores: Vec<_> = rows
            .zip(&prompt[first + 1..])
            .map(|(row, next)| {
                let max = finite_max(row).ok_or(EngineFailure::NonFiniteLogits)?;
                Ok(LogSoftmax::new(row, max).report(*next, n))
            })
            .collect();
        scores.into_iter().collect()
    }

    /// Samples after the token before a draft and then after each token of the draft, as long as the token sampled last is the
    /// one that was drafted. `rows` are the logits after each of these tokens, one more than the draft has.
    ///
    /// Nothing is sampled after a wrong token, so state and random stream are those of a sequence without drafts, and so
    /// is the text.
    pub fn sample_draft<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a mut [f32]>,
        draft: &[TokenId],
    ) -> Vec<Result<SampledToken, EngineFailure>> {
        let mut results = Vec::with_capacity(draft.len() + 1);
        // Rows are taken to their end, whatever happens: those of the next entry lie behind them.
        for (index, row) in rows.enumerate() {
            let still_right = match results.last() {
                None => true,
                Some(Ok(SampledToken { id, .. })) => results.len() == index && *id == draft[index - 1],
                Some(Err(_)) => false,
            };
            if still_right {
                results.push(self.sample(row));
            }
        }
        results
    }

    /// Penalties, bias, the constraint, and the choice itself. `max` is the largest of `logits`.
    fn choose(&mut self, logits: &mut [f32], max: f32) -> Result<TokenId, EngineFailure> {
        let max = if self.penalizes() || !self.sampling.logit_bias.is_empty() || self.constraint.is_active() {
            self.penalize(logits);
            self.apply_bias(logits);
            self.constraint.restrict(logits)?;
            finite_max(logits).ok_or(EngineFailure::NonFiniteLogits)?
        } else {
            max
        };
        if self.sampling.temperature <= 0.0 {
            return Ok(first_at_least(logits, max));
        }
        // A temperature so small that its inverse overflows still means "the largest", not 0 * inf.
        exp_weights(logits, max, self.sampling.temperature.recip().min(f32::MAX));
        let weights = logits;
        if let Some(k) = self.sampling.top_k {
            filters::top_k(weights, k);
        }
        filters::top_p(weights, self.sampling.top_p);
        if self.sampling.min_p > 0.0 {
            filters::min_p(weights, self.sampling.min_p, 1.0); // the largest weight is exp(0)
        }
        Ok(draw(weights, uniform(&mut self.random)))
    }

    /// Whether any penalty is on, and with it `history` in use.
    fn penalizes(&self) -> bool {
        penalizes(&self.sampling)
    }

    /// The repetition penalty of CTRL (arXiv:1909.05858), then `OpenAI`'s frequency and presence penalties.
    fn penalize(&self, logits: &mut [f32]) {
        let Sampling { repetition_penalty, frequency_penalty, presence_penalty, .. } = self.sampling;
        for (&token, &count) in &self.history {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
            if count > 0 {
                *logit -= presence_penalty + frequency_penalty * count as f32;
            }
        }
    }

    /// Tokens that the vocabulary does not have are ignored.
    fn apply_bias(&self, logits: &mut [f32]) {
        for &(token, bias) in &self.sampling.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
    }
}

/// Whether any penalty changes anything.
#[expect(clippy::float_cmp, reason = "1 is the exact value that turns the repetition penalty off")]
fn penalizes(sampling: &Sampling) -> bool {
    sampling.repetition_penalty != 1.0
        || sampling.frequency_penalty != 0.0
        || sampling.presence_penalty != 0.0
}

/// The first token whose logit is `max`.
fn first_at_least(logits: &[f32], max: f32) -> TokenId {
    logits.iter().position(|&logit| logit >= max).expect("invariant: max is one of the logits") as TokenId
}

/// A number in [0, 1) from the upper 53 bits of one draw.
fn uniform(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// The token at `fraction` of the way through the weights, in order of ids. Ids and not likelihood, so that rounding
/// noise between two nearly equal logits cannot swap them under the same draw.
fn draw(weights: &[f32], fraction: f64) -> TokenId {
    const BLOCK: usize = 1024;
    let target = fraction * sum(weights);
    let mut passed = 0.0;
    for (index, block) in weights.chunks(BLOCK).enumerate() {
        let after = passed + sum(block);
        if after > target {
            let mut here = passed;
            let offset = block.iter().position(|&weight| {
                here += f64::from(weight);
                weight > 0.0 && here > target
            });
            // Rounding may put the border a hair behind the block's last possible token.
            let offset = offset.unwrap_or_else(|| last_possible(block));
            return (index * BLOCK + offset) as TokenId;
        }
        passed = after;
    }
    last_possible(weights) as TokenId
}

/// The last index with a weight.
fn last_possible(weights: &[f32]) -> usize {
    weights.iter().rposition(|&weight| weight > 0.0).expect("invariant: the most likely token has weight 1")
}

#[cfg(test)]
mod tests;
