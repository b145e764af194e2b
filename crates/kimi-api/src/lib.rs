#![doc = include_str!("../README.md")]

mod chat_chunk;
mod chat_request;
mod chat_response;
mod error;
mod message;
mod model_list;
mod tool;

use serde::{Deserialize, Deserializer};

pub use chat_chunk::{ChatCompletionChunk, ChunkChoice, Delta, FunctionDelta, ToolCallDelta};
pub use chat_request::{
    ChatCompletionRequest, ChatTemplateKwargs, Reasoning, ReasoningEffort, StopSequences, StreamOptions,
    Thinking, ThinkingKeep, ThinkingKind,
};
pub use chat_response::{
    AnswerMessage, ChatChoice, ChatCompletion, ChoiceLogprobs, CompletionTokensDetails, FinishReason,
    PromptTokensDetails, TokenLogprob, TopLogprob, Usage,
};
pub use error::{ErrorBody, ErrorDetail};
pub use message::{
    Arguments, ChatMessage, Content, FunctionCall, MediaUrl, Part, Role, ToolCall, ToolCallKind,
};
pub use model_list::{Model, ModelList};
pub use tool::{FunctionDefinition, ResponseFormat, ResponseFormatKind, Tool, ToolChoice, ToolKind};

/// Reads `null` as the type's default, since clients send `null` for "not set".
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
