//! The body of a request.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::Blocks;
use crate::{ThinkingKind, null_as_default};

/// A request as it was sent. Keys without a counterpart here (`cache_control`, `metadata`, `context_management`, …) are
/// ignored.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct MessagesRequest {
    /// Which model is asked.
    pub model: String,
    /// The conversation so far; a last message of the assistant is continued.
    pub messages: Vec<InputMessage>,
    /// Instructions before the conversation.
    pub system: Option<Blocks>,
    /// At most this many tokens, thinking included. Required for an answer, not for a count.
    pub max_tokens: Option<i64>,
    /// Texts that end the answer.
    #[serde(default, deserialize_with = "null_as_default")]
    pub stop_sequences: Vec<String>,
    /// Whether the answer comes as server-sent events.
    #[serde(default, deserialize_with = "null_as_default")]
    pub stream: bool,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Only the `k` most likely tokens.
    pub top_k: Option<i64>,
    /// Tools the model may call.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tools: Vec<ToolParam>,
    /// Whether and which tool must be called.
    pub tool_choice: Option<ToolChoice>,
    /// Whether to think first.
    pub thinking: Option<Thinking>,
    /// The shape of the answer.
    pub output_config: Option<OutputConfig>,
    /// The older place of `output_config.format`.
    pub output_format: Option<OutputFormat>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct InputMessage {
    /// Who speaks.
    pub role: Speaker,
    /// What is said.
    pub content: Blocks,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// The person, and the results of tools.
    User,
    /// The model.
    Assistant,
    /// Instructions in the middle of a conversation, as agents send them.
    System,
}

/// A declared tool.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct ToolParam {
    /// Absent or `custom`: a tool of the client. Anything else is run by another service.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// What it does, for the model.
    pub description: Option<String>,
    /// The JSON schema of its input.
    pub input_schema: Option<Value>,
    /// Whether the input must follow the schema exactly.
    pub strict: Option<bool>,
}

/// Whether and which tool must be called.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesToolChoice")]
pub struct ToolChoice {
    /// The rule.
    #[serde(rename = "type")]
    pub kind: ToolChoiceKind,
    /// The tool of the rule `tool`.
    pub name: Option<String>,
    /// At most one call.
    pub disable_parallel_tool_use: Option<bool>,
}

/// The rules of [`ToolChoice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ToolChoiceKind {
    /// The model decides.
    Auto,
    /// At least one call.
    Any,
    /// A call of the named tool.
    Tool,
    /// No call.
    None,
}

/// Whether to think first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "MessagesThinking")]
pub struct Thinking {
    /// On, off, or as the model likes.
    #[serde(rename = "type")]
    pub kind: ThinkingKind,
    /// At most this many tokens of thinking.
    pub budget_tokens: Option<i64>,
}

/// The shape of the answer.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct OutputConfig {
    /// A schema for the text.
    pub format: Option<OutputFormat>,
}

/// A schema for the text.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct OutputFormat {
    /// `json_schema`, the only one.
    #[serde(rename = "type")]
    pub kind: String,
    /// The JSON schema.
    #[serde(default)]
    pub schema: Value,
}
