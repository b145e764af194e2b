//! The answer: whole, or as it grows in a stream.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::TokenLogprob;

/// An answer, and what it answers. Every key is always there: clients read them without asking.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Response {
    /// `resp_…`. Nothing is stored under it.
    pub id: String,
    /// Always [`Response::OBJECT`].
    pub object: &'static str,
    /// When it was begun, in seconds since 1970.
    pub created_at: u64,
    /// How far it is.
    pub status: ResponseStatus,
    /// Why it failed.
    pub error: Option<ResponseError>,
    /// Why it is incomplete.
    pub incomplete_details: Option<IncompleteDetails>,
    /// As the request had it.
    pub instructions: Option<String>,
    /// As the request had it.
    pub max_output_tokens: Option<i64>,
    /// As the request had it.
    pub metadata: Map<String, Value>,
    /// The model's name as the request spelled it.
    pub model: String,
    /// What the model thought, said and calls.
    pub output: Vec<OutputItem>,
    /// As the request had it.
    pub parallel_tool_calls: bool,
    /// Always null: no state is kept.
    pub previous_response_id: Option<String>,
    /// As the request had it.
    pub reasoning: Value,
    /// Always false: no state is kept.
    pub store: bool,
    /// The temperature that was used.
    pub temperature: f32,
    /// As the request had it.
    pub text: Value,
    /// As the request had it.
    pub tool_choice: Value,
    /// As the request had them.
    pub tools: Vec<Value>,
    /// The nucleus that was used.
    pub top_p: f32,
    /// Always `disabled`: an input that is too long is refused.
    pub truncation: &'static str,
    /// What it cost; null while it goes on.
    pub usage: Option<ResponseUsage>,
}

impl Response {
    /// The value of `object`.
    pub const OBJECT: &'static str = "response";
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseStatus {
    /// It grows.
    InProgress,
    /// It is whole.
    Completed,
    /// The token limit cut it.
    Incomplete,
    /// It broke off.
    Failed,
}

/// Why an answer failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ResponseError {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

/// Why an answer is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct IncompleteDetails {
    /// Always [`IncompleteDetails::MAX_OUTPUT_TOKENS`].
    pub reason: &'static str,
}

impl IncompleteDetails {
    /// The token limit was reached.
    pub const MAX_OUTPUT_TOKENS: Self = Self { reason: "max_output_tokens" };
}

/// An item of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutputItem {
    /// What the model thought.
    Reasoning {
        /// `rs_…`.
        id: String,
        /// The thoughts, for clients that asked for a summary.
        summary: Vec<ContentPart>,
        /// The thoughts, for all others.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        content: Vec<ContentPart>,
        /// How far it is.
        status: ItemStatus,
    },
    /// What the model says.
    Message {
        /// `msg_…`.
        id: String,
        /// Always `assistant`.
        role: &'static str,
        /// One part of text.
        content: Vec<ContentPart>,
        /// How far it is.
        status: ItemStatus,
    },
    /// What the model calls.
    FunctionCall {
        /// `fc_…`.
        id: String,
        /// Names the call, so that its output can answer it.
        call_id: String,
        /// The function.
        name: String,
        /// Its arguments as JSON text.
        arguments: String,
        /// How far it is.
        status: ItemStatus,
    },
}

/// How far an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    /// It grows.
    InProgress,
    /// It is whole.
    Completed,
    /// The token limit cut it.
    Incomplete,
}

/// A stretch of text in an item.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentPart {
    /// Of a message.
    OutputText {
        /// The text.
        text: String,
        /// Always empty: the model cites nothing.
        annotations: [Value; 0],
        /// Log probabilities of its tokens, when they were asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// Of reasoning.
    ReasoningText {
        /// The text.
        text: String,
    },
    /// Of reasoning, for clients that asked for a summary.
    SummaryText {
        /// The text.
        text: String,
    },
}

/// What an answer cost, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ResponseUsage {
    /// Of the prompt, those from the cache included.
    pub input_tokens: usize,
    /// How they divide.
    pub input_tokens_details: InputTokensDetails,
    /// Generated, reasoning included.
    pub output_tokens: usize,
    /// How they divide.
    pub output_tokens_details: OutputTokensDetails,
    /// Both together.
    pub total_tokens: usize,
}

/// How the prompt's tokens divide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InputTokensDetails {
    /// Taken from the cache.
    pub cached_tokens: usize,
    /// Written to the cache at a price of its own; that is never so here.
    pub cache_write_tokens: usize,
}

/// How the generated tokens divide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OutputTokensDetails {
    /// Spent on reasoning.
    pub reasoning_tokens: usize,
}
