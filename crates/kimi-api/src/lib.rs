#![doc = include_str!("../README.md")]

mod account;
pub mod anthropic;
mod chat_chunk;
mod chat_request;
mod chat_response;
mod completion;
mod error;
mod file;
mod message;
mod model_list;
pub mod responses;
mod schema;
mod server_info;
mod tokenize;
mod tool;

use serde::{Deserialize, Deserializer};

pub use account::{Balance, BalanceResponse};
pub use chat_chunk::{ChatCompletionChunk, ChunkChoice, Delta, FunctionDelta, ToolCallDelta};
pub use chat_request::{
    ChatCompletionRequest, ChatTemplateKwargs, Reasoning, ReasoningEffort, StopSequences, StreamOptions,
    Thinking, ThinkingKeep, ThinkingKind,
};
pub use chat_response::{
    AnswerMessage, ChatChoice, ChatCompletion, ChoiceLogprobs, CompletionTokensDetails, FinishReason,
    PromptTokensDetails, TokenLogprob, TopLogprob, Usage,
};
pub use completion::{
    Completion, CompletionChoice, CompletionLogprobs, CompletionRequest, Prompts, TextOrTokens,
};
pub use error::{ErrorBody, ErrorDetail};
pub use file::{FileDeleted, FileList, FileObject, FilePurpose};
pub use message::{
    Arguments, ChatMessage, Content, FunctionCall, MediaUrl, Part, Role, ToolCall, ToolCallKind,
};
pub use model_list::{Model, ModelList};
pub use server_info::{LoadInfo, VersionInfo};
pub use tokenize::{
    DetokenizeRequest, DetokenizeResponse, TokenEstimate, TokenizeRequest, TokenizeResponse, TotalTokens,
};
pub use tool::{
    FunctionDefinition, ResponseFormat, ResponseFormatKind, StructuredOutputs, Tool, ToolChoice, ToolKind,
};

/// Reads `null` as the type's default, since clients send `null` for "not set".
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
