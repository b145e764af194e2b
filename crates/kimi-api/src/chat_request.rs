//! The body of `POST /v1/chat/completions`: every key that means something to this server.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{ChatMessage, ResponseFormat, StructuredOutputs, Tool, ToolChoice, null_as_default};

/// A request as it was sent. No defaults are filled in and no limits are checked here. `null` is the same as absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct ChatCompletionRequest {
    /// Which model is asked.
    pub model: String,
    /// The conversation so far.
    pub messages: Vec<ChatMessage>,
    /// At most this many tokens, reasoning included; wins over `max_tokens`.
    pub max_completion_tokens: Option<i64>,
    /// The older name of `max_completion_tokens`.
    pub max_tokens: Option<i64>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// How many answers.
    pub n: Option<i64>,
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
    /// The shape the answer must have.
    pub response_format: Option<ResponseFormat>,
    /// The shape the answer must have, in the terms of self-hosted servers.
    pub structured_outputs: Option<StructuredOutputs>,
    /// Tools the model may call.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tools: Vec<Tool>,
    /// Whether and which tool must be called.
    pub tool_choice: Option<ToolChoice>,
    /// Whether several calls may be made in one answer.
    pub parallel_tool_calls: Option<bool>,
    /// The thinking switch of this API.
    pub thinking: Option<Thinking>,
    /// Thinking switches as template variables.
    pub chat_template_kwargs: Option<ChatTemplateKwargs>,
    /// Another spelling of the thinking switch.
    pub enable_thinking: Option<bool>,
    /// Another spelling of the thinking switch.
    pub reasoning: Option<Reasoning>,
    /// How hard to think; this model knows only `none` and "yes".
    pub reasoning_effort: Option<ReasoningEffort>,
    /// At most this many tokens of reasoning.
    pub thinking_budget: Option<i64>,
    /// Another name of `thinking_budget`.
    pub thinking_token_budget: Option<i64>,
    /// Whether log probabilities of the answer's tokens are reported.
    pub logprobs: Option<bool>,
    /// How many alternatives are reported at each position.
    pub top_logprobs: Option<i64>,
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
    /// The last message, an assistant's, is continued; the same as its `partial`.
    pub continue_final_message: Option<bool>,
    /// Whether the prompt opens the model's turn; `false` only together with `continue_final_message`.
    pub add_generation_prompt: Option<bool>,
    /// Names the session, as a hint where its prefix may be cached.
    #[schemars(with = "Option<serde_json::Value>")]
    pub prompt_cache_key: Option<IgnoredAny>,
    /// Requests share cached prefixes only with those of the same salt.
    pub cache_salt: Option<String>,
    /// Requests with a lower number go first.
    pub priority: Option<i64>,
    /// Names the end user for the tracing of abuse; never logged.
    #[schemars(with = "Option<serde_json::Value>")]
    pub safety_identifier: Option<IgnoredAny>,
    /// The predecessor of `safety_identifier`.
    #[schemars(with = "Option<serde_json::Value>")]
    pub user: Option<IgnoredAny>,
    /// What the answer probably says, a hint for speed.
    #[schemars(with = "Option<serde_json::Value>")]
    pub prediction: Option<IgnoredAny>,
    /// Labels for the client's own use.
    #[schemars(with = "Option<serde_json::Value>")]
    pub metadata: Option<IgnoredAny>,
    /// Asks for a swarm of agents; not a feature of the model.
    #[schemars(with = "Option<serde_json::Value>")]
    pub agent: Option<IgnoredAny>,
    /// The predecessor of `tools`.
    #[schemars(with = "Option<serde_json::Value>")]
    pub functions: Option<IgnoredAny>,
    /// The predecessor of `tool_choice`.
    #[schemars(with = "Option<serde_json::Value>")]
    pub function_call: Option<IgnoredAny>,
}

/// `stop`: one text or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopSequences(pub Vec<String>);

impl<'de> Deserialize<'de> for StopSequences {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StopVisitor;
        impl<'de> Visitor<'de> for StopVisitor {
            type Value = StopSequences;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }
            fn visit_str<E: Error>(self, stop: &str) -> Result<StopSequences, E> {
                Ok(StopSequences(vec![stop.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, stops: A) -> Result<StopSequences, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(stops)).map(StopSequences)
            }
        }
        deserializer.deserialize_any(StopVisitor)
    }
}

/// `stream_options`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct StreamOptions {
    /// A last chunk without choices carries the usage.
    #[serde(default, deserialize_with = "null_as_default")]
    pub include_usage: bool,
}

/// `thinking`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Thinking {
    /// On or off.
    #[serde(rename = "type")]
    pub kind: ThinkingKind,
    /// Whether the reasoning of earlier turns stays in the prompt.
    pub keep: Option<ThinkingKeep>,
    /// At most this many tokens of reasoning.
    pub budget_tokens: Option<i64>,
    /// Keys this API does not know; the hosted service refuses them.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// The values of `thinking.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ThinkingKind {
    /// Think first.
    Enabled,
    /// Answer at once.
    Disabled,
    /// The model decides, which for this model means to think.
    Adaptive,
}

/// The values of `thinking.keep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ThinkingKeep {
    /// The reasoning of every turn.
    All,
}

/// `chat_template_kwargs`: the variables of the chat template that clients may set; all others are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct ChatTemplateKwargs {
    /// Think first.
    pub thinking: Option<bool>,
    /// The same as `thinking`.
    pub enable_thinking: Option<bool>,
    /// Keep the reasoning of every turn.
    pub preserve_thinking: Option<bool>,
    /// The opposite of `preserve_thinking`.
    pub clear_thinking: Option<bool>,
}

/// `reasoning`: the switches of a popular reseller.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct Reasoning {
    /// Think first.
    pub enabled: Option<bool>,
    /// How hard.
    pub effort: Option<ReasoningEffort>,
    /// Think, but leave the reasoning out of the answer.
    pub exclude: Option<bool>,
    /// At most this many tokens of reasoning.
    pub max_tokens: Option<i64>,
}

/// How hard to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReasoningEffort {
    /// Not at all.
    None,
    /// The least.
    Minimal,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// More.
    Xhigh,
    /// The most.
    Max,
}
