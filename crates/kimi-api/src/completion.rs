//! `POST /v1/completions`: text that continues a prompt without chat format.

use std::collections::BTreeMap;
use std::fmt;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{ChatCompletionRequest, FinishReason, StopSequences, StreamOptions, Usage, null_as_default};

/// A request as it was sent. No defaults are filled in and no limits are checked here. `null` is the same as absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct CompletionRequest {
    /// Which model is asked.
    pub model: String,
    /// What is continued.
    pub prompt: Prompts,
    /// At most this many tokens.
    pub max_tokens: Option<i64>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// How many answers to each prompt.
    pub n: Option<i64>,
    /// Draw this many answers and return the best `n`; not supported beyond `n`.
    pub best_of: Option<i64>,
    /// Penalty for tokens that appeared.
    pub presence_penalty: Option<f64>,
    /// Penalty for each time a token appeared.
    pub frequency_penalty: Option<f64>,
    /// Texts that end the answer.
    pub stop: Option<StopSequences>,
    /// Whether the answer comes as server-sent events.
    #[serde(default, deserialize_with = "null_as_default")]
    pub stream: bool,
    /// What a streamed answer carries beside the text.
    pub stream_options: Option<StreamOptions>,
    /// Report the log probability of each token and of this many alternatives.
    pub logprobs: Option<i64>,
    /// The answer begins with the prompt; with `logprobs` those of the prompt's tokens, too, and `max_tokens` may be 0.
    pub echo: Option<bool>,
    /// Text that comes after the answer; this model cannot fill a gap.
    pub suffix: Option<String>,
    /// Seeds the random choice of tokens.
    pub seed: Option<i64>,
    /// Only the `k` most likely tokens; 0 or -1 is off.
    pub top_k: Option<i64>,
    /// Only tokens at least this likely relative to the most likely one.
    pub min_p: Option<f64>,
    /// Divides the logits of tokens that appeared.
    pub repetition_penalty: Option<f64>,
    /// Added to the logits of token ids.
    pub logit_bias: Option<BTreeMap<u32, f32>>,
    /// Token ids that end the answer.
    #[serde(default, deserialize_with = "null_as_default")]
    pub stop_token_ids: Vec<u32>,
    /// Go on after the end token until `max_tokens`; for load generators.
    pub ignore_eos: Option<bool>,
    /// Do not end before this many tokens.
    pub min_tokens: Option<i64>,
    /// The stop text or token that ended the answer is part of it.
    pub include_stop_str_in_output: Option<bool>,
    /// The answer carries the token ids of the prompt and of itself.
    pub return_token_ids: Option<bool>,
    /// Leave special tokens out of the text; true when absent.
    pub skip_special_tokens: Option<bool>,
    /// Special tokens that a text prompt spells are special tokens; true when absent. Turn it off for text of strangers.
    pub parse_special: Option<bool>,
    /// Requests share cached prefixes only with those of the same salt.
    pub cache_salt: Option<String>,
    /// Requests with a lower number go first.
    pub priority: Option<i64>,
    /// Names the end user; never logged.
    #[schemars(with = "Option<serde_json::Value>")]
    pub user: Option<IgnoredAny>,
}

impl CompletionRequest {
    /// The keys that a chat request has, too, as a chat request without messages.
    ///
    /// Both types spell them out: `serde(flatten)` would lose the path of a mistake and the count of unknown keys.
    pub fn shared(&self) -> ChatCompletionRequest {
        let alternatives = self.logprobs;
        ChatCompletionRequest {
            model: self.model.clone(),
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            n: self.n,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            stop: self.stop.clone(),
            stream: self.stream,
            stream_options: self.stream_options,
            logprobs: alternatives.map(|_| true),
            top_logprobs: alternatives,
            seed: self.seed,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            logit_bias: self.logit_bias.clone(),
            stop_token_ids: self.stop_token_ids.clone(),
            ignore_eos: self.ignore_eos,
            min_tokens: self.min_tokens,
            include_stop_str_in_output: self.include_stop_str_in_output,
            return_token_ids: self.return_token_ids,
            cache_salt: self.cache_salt.clone(),
            priority: self.priority,
            ..ChatCompletionRequest::default()
        }
    }
}

/// `prompt`: one or several, each as text or as token ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompts(pub Vec<TextOrTokens>);

impl Default for Prompts {
    fn default() -> Self {
        Self(vec![TextOrTokens::default()])
    }
}

/// A prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextOrTokens {
    /// Text.
    Text(String),
    /// Token ids of the model's vocabulary.
    Tokens(Vec<u32>),
}

impl Default for TextOrTokens {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// What an array of prompts may hold.
enum Item {
    Id(u32),
    Prompt(TextOrTokens),
}

impl<'de> Deserialize<'de> for Prompts {
    /// `[1, 2]` is one prompt of ids; `["a", [1, 2]]` are two prompts.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PromptsVisitor;
        impl<'de> Visitor<'de> for PromptsVisitor {
            type Value = Prompts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, an array of strings, an array of token ids or an array of such arrays")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Prompts, E> {
                Ok(Prompts(vec![TextOrTokens::Text(text.to_owned())]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Prompts, A::Error> {
                let (mut ids, mut prompts) = (Vec::new(), Vec::new());
                while let Some(item) = items.next_element()? {
                    match item {
                        Item::Id(id) => ids.push(id),
                        Item::Prompt(prompt) => prompts.push(prompt),
                    }
                    if !ids.is_empty() && !prompts.is_empty() {
                        return Err(A::Error::custom("an array of prompts cannot hold token ids of its own"));
                    }
                }
                if !ids.is_empty() {
                    prompts.push(TextOrTokens::Tokens(ids));
                }
                Ok(Prompts(prompts))
            }
        }
        deserializer.deserialize_any(PromptsVisitor)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemVisitor;
        impl<'de> Visitor<'de> for ItemVisitor {
            type Value = Item;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token id, a string or an array of token ids")
            }
            fn visit_u64<E: Error>(self, id: u64) -> Result<Item, E> {
                u32::try_from(id)
                    .map(Item::Id)
                    .map_err(|_| E::custom(format!("{id} is too large for a token id")))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Item, E> {
                Ok(Item::Prompt(TextOrTokens::Text(text.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut ids: A) -> Result<Item, A::Error> {
                let mut tokens = Vec::new();
                while let Some(id) = ids.next_element()? {
                    tokens.push(id);
                }
                Ok(Item::Prompt(TextOrTokens::Tokens(tokens)))
            }
        }
        deserializer.deserialize_any(ItemVisitor)
    }
}

/// An answer, whole or one chunk of a streamed one.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Completion<'a> {
    /// `cmpl-…`.
    pub id: &'a str,
    /// Always [`Completion::OBJECT`].
    pub object: &'static str,
    /// When the answer began, in seconds since 1970.
    pub created: u64,
    /// The model's name as the request spelled it.
    pub model: &'a str,
    /// One entry for each answer; on a chunk, for those that it adds to.
    pub choices: Vec<CompletionChoice>,
    /// What it cost. `None`: the key is absent. `Some(None)`: it is `null`, as on all chunks but the last when usage was
    /// asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
}

impl Completion<'_> {
    /// The value of `object`.
    pub const OBJECT: &'static str = "text_completion";
}

/// One answer, or what a chunk adds to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct CompletionChoice {
    /// Which answer, from 0: those to the first prompt before those to the second.
    pub index: usize,
    /// The text.
    pub text: String,
    /// Null when not asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// Null on all chunks but the last of this answer.
    pub finish_reason: Option<FinishReason>,
    /// The prompt's token ids, when the request asked for ids; on the first chunk of this answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
    /// Every token that was generated, when the request asked for ids; on a chunk, those since the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// Log probabilities in the shape of this older route: parallel arrays, one entry for each token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct CompletionLogprobs {
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// Their natural-log probabilities; `null` for the first token of a prompt, which nothing predicts.
    pub token_logprobs: Vec<Option<f32>>,
    /// The most likely tokens at each place, by their texts; descending. `null` for the first token of a prompt.
    pub top_logprobs: Vec<Option<IndexMap<String, f32>>>,
    /// Where each token begins in `text`, in characters.
    pub text_offset: Vec<usize>,
}
