//! The body of a request.

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Input;
use crate::{ReasoningEffort, null_as_default};

/// A request as it was sent. Keys without a counterpart here are ignored.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct ResponsesRequest {
    /// Which model is asked.
    pub model: String,
    /// The conversation so far.
    pub input: Input,
    /// Instructions before the conversation.
    pub instructions: Option<String>,
    /// Tools the model may call, as sent: the answer repeats them.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tools: Vec<Value>,
    /// Whether and which tool must be called.
    pub tool_choice: Option<ToolChoice>,
    /// Whether several calls may be made in one answer.
    pub parallel_tool_calls: Option<bool>,
    /// The shape of the answer's text.
    pub text: Option<TextConfig>,
    /// Whether to think first.
    pub reasoning: Option<ReasoningConfig>,
    /// At most this many tokens, reasoning included.
    pub max_output_tokens: Option<i64>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// How many alternatives are reported at each position.
    pub top_logprobs: Option<i64>,
    /// What the answer carries beside the text.
    #[serde(default, deserialize_with = "null_as_default")]
    pub include: Vec<String>,
    /// Whether the answer comes as server-sent events.
    #[serde(default, deserialize_with = "null_as_default")]
    pub stream: bool,
    /// Labels for the client's own use; the answer repeats them.
    pub metadata: Option<Map<String, Value>>,
    /// What to do when the input is too long.
    pub truncation: Option<String>,
    /// Whether the work goes on without the client.
    pub background: Option<bool>,
    /// An answer to go on from, stored elsewhere.
    pub previous_response_id: Option<String>,
    /// A conversation to go on from, stored elsewhere.
    pub conversation: Option<Value>,
    /// A prompt template, stored elsewhere.
    pub prompt: Option<Value>,
}

/// The shape of the answer's text.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct TextConfig {
    /// `text`, `json_object`, or `json_schema` with its `name`, `schema` and `strict` beside it.
    pub format: Option<Map<String, Value>>,
}

/// Whether to think first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReasoningConfig {
    /// How hard.
    pub effort: Option<ReasoningEffort>,
    /// The client reads the reasoning as its summary.
    pub summary: Option<String>,
}

/// Whether and which tool the model must call.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct ToolChoice {
    /// The choice, in the words of the chat API.
    pub choice: crate::ToolChoice,
    /// As sent: the answer repeats it.
    pub raw: Value,
}

impl TryFrom<Value> for ToolChoice {
    type Error = serde_json::Error;

    fn try_from(raw: Value) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Named {
            #[serde(rename = "type")]
            kind: String,
            name: Option<String>,
        }
        let choice = if raw.is_object() {
            match Named::deserialize(&raw)? {
                Named { kind, name: Some(name) } if kind == "function" => crate::ToolChoice::Function(name),
                Named { kind, name: None } if kind == "function" => {
                    return Err(serde_json::Error::missing_field("name"));
                }
                Named { kind, .. } => return Err(serde_json::Error::unknown_variant(&kind, &["function"])),
            }
        } else {
            crate::ToolChoice::deserialize(&raw)?
        };
        Ok(Self { choice, raw })
    }
}
