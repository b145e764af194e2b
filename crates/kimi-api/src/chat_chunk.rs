//! The streamed answer of `POST /v1/chat/completions`. Chunks borrow: one is written for every token.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{ChoiceLogprobs, FinishReason, Role, ToolCallKind, Usage};

/// One `data:` line.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ChatCompletionChunk<'a> {
    /// The same on every chunk of an answer.
    pub id: &'a str,
    /// Always [`ChatCompletionChunk::OBJECT`].
    pub object: &'static str,
    /// When the answer began, in seconds since 1970; the same on every chunk.
    pub created: u64,
    /// The model's name as the request spelled it.
    pub model: &'a str,
    /// One choice, or none on the usage chunk.
    pub choices: &'a [ChunkChoice<'a>],
    /// `None`: the key is absent. `Some(None)`: it is `null`, as on all chunks but the last when usage was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
    /// On the first chunk: the prompt's token ids, when the request asked for ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<&'a [u32]>,
}

impl ChatCompletionChunk<'_> {
    /// The value of `object`.
    pub const OBJECT: &'static str = "chat.completion.chunk";
}

/// What a chunk adds to one answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ChunkChoice<'a> {
    /// Which of the answers asked for, from 0.
    pub index: usize,
    /// The addition.
    pub delta: Delta<'a>,
    /// Log probabilities of tokens that completed since the chunk before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<ChoiceLogprobs>,
    /// Null until the last chunk of the answer.
    pub finish_reason: Option<FinishReason>,
    /// On the last chunk of the answer: where this API's own clients look for the usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Tokens generated since the chunk before, when the request asked for ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub token_ids: Vec<u32>,
}

/// An addition to a message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Delta<'a> {
    /// On the first chunk only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// More of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<&'a str>,
    /// More of the reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<&'a str>,
    /// The same text under its other name, for clients that read that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<&'a str>,
    /// A call that begins or goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<[ToolCallDelta<'a>; 1]>,
}

/// A call that begins (all keys) or goes on (`index` and more of the arguments).
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ToolCallDelta<'a> {
    /// Which call of the answer, from 0.
    pub index: usize,
    /// Its id, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// Its kind, once.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ToolCallKind>,
    /// Its function.
    pub function: FunctionDelta<'a>,
}

/// The function part of a [`ToolCallDelta`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct FunctionDelta<'a> {
    /// Its name, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// More of the arguments' JSON text.
    pub arguments: &'a str,
}
