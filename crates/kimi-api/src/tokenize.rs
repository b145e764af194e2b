//! Text to tokens and back: `POST /tokenize`, `POST /detokenize` and `POST /v1/tokenizers/estimate-token-count`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ChatCompletionRequest, ChatMessage, ChatTemplateKwargs, Thinking, Tool, null_as_default};

/// The body of `POST /tokenize`: a text, or a conversation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct TokenizeRequest {
    /// Which model's tokens; the loaded one's when absent.
    pub model: Option<String>,
    /// A text.
    pub prompt: Option<String>,
    /// A conversation, instead of a text.
    pub messages: Option<Vec<ChatMessage>>,
    /// Tools of the conversation.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tools: Vec<Tool>,
    /// The thinking switch of the conversation.
    pub thinking: Option<Thinking>,
    /// Template variables of the conversation.
    pub chat_template_kwargs: Option<ChatTemplateKwargs>,
    /// Whether the conversation's prompt opens the model's turn; true when absent.
    pub add_generation_prompt: Option<bool>,
    /// The conversation's last message is continued.
    pub continue_final_message: Option<bool>,
    /// Whether tokens that every text begins with are added. This model has none: no effect.
    pub add_special_tokens: Option<bool>,
    /// Special tokens that the text spells are special tokens; true when absent.
    pub parse_special: Option<bool>,
    /// Return the tokens' texts, too.
    pub return_token_strs: Option<bool>,
}

/// The answer of `POST /tokenize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TokenizeResponse {
    /// How many tokens there are.
    pub count: usize,
    /// Tokens a prompt and its answer may have together.
    pub max_model_len: usize,
    /// Their ids.
    pub tokens: Vec<u32>,
    /// Their texts, when asked for; bytes that are no UTF-8 on their own show as U+FFFD.
    pub token_strs: Option<Vec<String>>,
}

/// The body of `POST /detokenize`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct DetokenizeRequest {
    /// Which model's tokens; the loaded one's when absent.
    pub model: Option<String>,
    /// The ids.
    pub tokens: Vec<u32>,
}

/// The answer of `POST /detokenize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DetokenizeResponse {
    /// The text, special tokens by name.
    pub prompt: String,
}

/// The answer of `POST /v1/tokenizers/estimate-token-count`. The body is that of a chat request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TokenEstimate {
    /// The count.
    pub data: TotalTokens,
}

/// The count in a [`TokenEstimate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TotalTokens {
    /// Exactly what the usage of a chat request with this body will say of its prompt.
    pub total_tokens: usize,
}

impl TokenizeRequest {
    /// The conversation as a chat request; `None` when it is a text.
    pub fn into_chat(self) -> Option<ChatCompletionRequest> {
        Some(ChatCompletionRequest {
            model: self.model.unwrap_or_default(),
            messages: self.messages?,
            tools: self.tools,
            thinking: self.thinking,
            chat_template_kwargs: self.chat_template_kwargs,
            add_generation_prompt: self.add_generation_prompt,
            continue_final_message: self.continue_final_message,
            ..ChatCompletionRequest::default()
        })
    }
}
