//! The whole answer of `POST /v1/chat/completions`, and what whole and streamed answers share.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{Role, ToolCall};

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ChatCompletion {
    /// `chatcmpl-…`.
    pub id: String,
    /// Always [`ChatCompletion::OBJECT`].
    pub object: &'static str,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The model's name as the request spelled it.
    pub model: String,
    /// One entry for each answer asked for.
    pub choices: Vec<ChatChoice>,
    /// What it cost: the prompt once, all answers together.
    pub usage: Usage,
    /// The prompt's token ids, when the request asked for ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
}

impl ChatCompletion {
    /// The value of `object`.
    pub const OBJECT: &'static str = "chat.completion";
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ChatChoice {
    /// Which of the answers asked for, from 0.
    pub index: usize,
    /// What the model says.
    pub message: AnswerMessage,
    /// Present when the request asked for log probabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<ChoiceLogprobs>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Every token that was generated, markers and the end token included, when the request asked for ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// The assistant's message of a whole answer.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct AnswerMessage {
    /// Always `assistant`.
    pub role: Role,
    /// The answer; empty, never null, beside tool calls.
    pub content: String,
    /// The reasoning; absent when the model did not think.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The same text under its other name, for clients that read that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The calls; absent when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop text did.
    Stop,
    /// The token limit was reached.
    Length,
    /// The model calls tools and waits for their results.
    ToolCalls,
}

/// What an answer cost, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Usage {
    /// Of the prompt.
    pub prompt_tokens: usize,
    /// Generated, reasoning included.
    pub completion_tokens: usize,
    /// Both together.
    pub total_tokens: usize,
    /// Prompt tokens that came from the cache; where this API's own clients look.
    pub cached_tokens: usize,
    /// Where OpenAI's clients look for the same number.
    pub prompt_tokens_details: PromptTokensDetails,
    /// How the generated tokens divide.
    pub completion_tokens_details: CompletionTokensDetails,
}

/// Details of the prompt's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PromptTokensDetails {
    /// Taken from the cache.
    pub cached_tokens: usize,
}

/// Details of the generated tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CompletionTokensDetails {
    /// Spent on reasoning.
    pub reasoning_tokens: usize,
}

impl Usage {
    /// The usage of one answer.
    pub fn new(
        prompt_tokens: usize,
        completion_tokens: usize,
        cached_tokens: usize,
        reasoning_tokens: usize,
    ) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            cached_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens },
            completion_tokens_details: CompletionTokensDetails { reasoning_tokens },
        }
    }

    /// Adds the cost of another answer; `prompt` says whether it had a prompt of its own, or shared one that is counted.
    pub fn add(&mut self, other: Self, prompt: bool) {
        let (prompt_tokens, cached_tokens) =
            if prompt { (other.prompt_tokens, other.cached_tokens) } else { (0, 0) };
        *self = Self::new(
            self.prompt_tokens + prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + cached_tokens,
            self.completion_tokens_details.reasoning_tokens
                + other.completion_tokens_details.reasoning_tokens,
        );
    }
}

/// Log probabilities of the answer's tokens; reasoning and tool calls have none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ChoiceLogprobs {
    /// One entry for each token of `content`.
    pub content: Vec<TokenLogprob>,
}

/// One token of the answer and what else was likely there.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TokenLogprob {
    /// The token's text; bytes that are no UTF-8 on their own show as U+FFFD.
    pub token: String,
    /// Its natural-log probability.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The most likely tokens, descending.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token that was likely at a position.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TopLogprob {
    /// The token's text.
    pub token: String,
    /// Its natural-log probability.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}
