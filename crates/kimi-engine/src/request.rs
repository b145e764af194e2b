//! What a caller asks of the engine.

use kimi_scheduler::{CacheScope, Standing};
use kimi_tokens::{EncodedPrompt, TokenId};

use crate::Constraint;

/// One generation, fully decided: every default is filled in and every limit checked.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// The tokens to continue.
    pub prompt: EncodedPrompt,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// At most this many tokens are generated, reasoning included. At least 1.
    pub max_tokens: usize,
    /// Tokens that end the generation with [`FinishReason::Stop`](crate::FinishReason::Stop). The stop token itself is
    /// sent as the last token event.
    pub stop_tokens: Vec<TokenId>,
    /// `Some(n)`: report the log probability of each sampled token and of the `n` most likely ones.
    pub logprobs: Option<usize>,
    /// `Some(n)`: report the log probability of each token of the prompt but the first and of the `n` most likely ones there. The
    /// prompt is then computed whole, whatever the prefix cache has of it.
    pub prompt_logprobs: Option<usize>,
    /// Whose computed prefixes it may begin with, and who may begin with its own; `None` keeps it apart.
    pub cache_scope: Option<CacheScope>,
    /// What the answer must look like; by default nothing.
    pub constraint: Constraint,
    /// Its turn among the waiting requests.
    pub standing: Standing,
}

/// How a token is chosen from the logits, in the order of the fields: penalties, bias, temperature, filters, draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy; the other filters then have no effect.
    pub temperature: f32,
    /// Nucleus: the smallest set of tokens whose probability reaches this, in (0, 1].
    pub top_p: f32,
    /// Only the `k` most likely tokens; `None` keeps all.
    pub top_k: Option<usize>,
    /// Only tokens at least this likely relative to the most likely one, in [0, 1].
    pub min_p: f32,
    /// Subtracted from the logit of every token generated so far.
    pub presence_penalty: f32,
    /// Subtracted once for each time the token was generated so far.
    pub frequency_penalty: f32,
    /// Divides positive and multiplies negative logits of tokens of the prompt and the output; 1 is off.
    pub repetition_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Seeds this request's own random stream: the same seed gives the same text, whatever else is in the batch.
    pub seed: u64,
}

impl Sampling {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: None,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}
