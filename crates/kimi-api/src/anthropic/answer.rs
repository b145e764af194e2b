//! The whole answer, and what whole and streamed answers share.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// A whole answer, or the empty beginning of a streamed one.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Message {
    /// `msg_…`.
    pub id: String,
    /// Always [`Message::TYPE`].
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Always [`Message::ROLE`].
    pub role: &'static str,
    /// The model's name as the request spelled it.
    pub model: String,
    /// What the model says.
    pub content: Vec<OutputBlock>,
    /// Why it ended; null while it goes on.
    pub stop_reason: Option<StopReason>,
    /// The stop sequence that ended it.
    pub stop_sequence: Option<String>,
    /// What it cost.
    pub usage: Usage,
}

impl Message {
    /// The value of `type`.
    pub const TYPE: &'static str = "message";
    /// The value of `role`.
    pub const ROLE: &'static str = "assistant";
}

/// A block of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputBlock {
    /// Thoughts before the answer.
    Thinking {
        /// The thoughts.
        thinking: String,
        /// Opaque to clients, who send it back; this server has nothing to sign.
        signature: String,
    },
    /// The answer.
    Text {
        /// The text.
        text: String,
    },
    /// A call of a tool.
    ToolUse {
        /// Names the call, so that its result can answer it.
        id: String,
        /// The tool.
        name: String,
        /// Its input, an object.
        input: Value,
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model ended it.
    EndTurn,
    /// The token limit was reached.
    MaxTokens,
    /// A stop sequence came.
    StopSequence,
    /// The model calls tools and waits for their results.
    ToolUse,
}

/// What an answer cost, in tokens. The whole prompt is the sum of the three input counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Usage {
    /// Of the prompt, without those that came from the cache.
    pub input_tokens: usize,
    /// Written to the cache at a price of its own; that is never so here.
    pub cache_creation_input_tokens: usize,
    /// Of the prompt, from the cache.
    pub cache_read_input_tokens: usize,
    /// Generated, thinking included.
    pub output_tokens: usize,
}

/// The answer of `count_tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TokenCount {
    /// Tokens of the prompt.
    pub input_tokens: usize,
}
