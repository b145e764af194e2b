//! Text to tokens and back: `POST /tokenize`, `POST /detokenize`, `POST /v1/tokenizers/estimate-token-count`.

use axum::Json;
use kimi_api::{
    ChatCompletionRequest, DetokenizeRequest, DetokenizeResponse, TokenEstimate, TokenizeRequest,
    TokenizeResponse, TotalTokens,
};
use kimi_chat::Conversation;
use kimi_tokens::TokenId;

use super::exchange::{Asked, Exchange};
use crate::ApiError;
use crate::validate::{Prompt, RawPrompt};

/// How many tokens a chat request's prompt has.
pub(crate) async fn estimate(
    Asked(request, exchange): Asked<ChatCompletionRequest>,
) -> Result<Json<TokenEstimate>, ApiError> {
    let total_tokens = exchange.count(request).await?;
    Ok(Json(TokenEstimate { data: TotalTokens { total_tokens } }))
}

/// A text or a conversation as token ids.
pub(crate) async fn tokenize(
    Asked(request, exchange): Asked<TokenizeRequest>,
) -> Result<Json<TokenizeResponse>, ApiError> {
    let service = &exchange.service;
    let with_texts = request.return_token_strs == Some(true);
    let tokens = match (request.prompt.clone(), request.messages.is_some()) {
        (Some(text), false) if text.is_empty() => Vec::new(),
        (Some(text), false) => {
            let parse_special = request.parse_special.unwrap_or(true);
            let prompt = RawPrompt::Text { text, parse_special };
            exchange.encode(Prompt::Raw { prompt, show_markers: true }).await?
        }
        (None, true) => {
            let conversation = conversation(request, &exchange)?;
            exchange.encode(Prompt::Chat(Box::new(conversation))).await?
        }
        _ => return Err(ApiError::invalid("Invalid request: give either prompt or messages")),
    };
    let text = |id: &TokenId| service.vocabulary.decode(std::slice::from_ref(id));
    Ok(Json(TokenizeResponse {
        count: tokens.len(),
        max_model_len: service.engine.limits().max_context,
        token_strs: with_texts.then(|| tokens.iter().map(text).collect()),
        tokens,
    }))
}

/// The conversation to tokenize. Unlike one that is to be answered it may end without opening the model's turn.
fn conversation(request: TokenizeRequest, exchange: &Exchange) -> Result<Conversation, ApiError> {
    let opens_turn = request.add_generation_prompt.unwrap_or(true);
    let continues = request.continue_final_message == Some(true);
    let Some(mut chat) = request.into_chat() else {
        return Err(ApiError::invalid("Invalid request: messages must not be empty"));
    };
    if !continues && !opens_turn {
        chat.add_generation_prompt = None;
    }
    let conversation = exchange.conversation(chat)?;
    Ok(Conversation { add_generation_prompt: opens_turn, ..conversation })
}

/// Token ids as text, special tokens by name.
pub(crate) async fn detokenize(
    Asked(request, exchange): Asked<DetokenizeRequest>,
) -> Result<Json<DetokenizeResponse>, ApiError> {
    let vocabulary = &exchange.service.vocabulary;
    let len = vocabulary.len();
    if let Some(id) = request.tokens.iter().find(|id| **id as usize >= len) {
        return Err(ApiError::invalid(format!(
            "Invalid request: tokens has the token id {id}; this model's ids are below {len}"
        )));
    }
    Ok(Json(DetokenizeResponse { prompt: vocabulary.decode(&request.tokens) }))
}
