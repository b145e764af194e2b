//! Text to tokens and back: `POST /tokenize`, `POST /detokenize`, `POST /v1/tokenizers/estimate-token-count`.

use axum::extract::{Request, State};
use axum::{Extension, Json};
use kimi_api::{
    ChatCompletionRequest, DetokenizeRequest, DetokenizeResponse, TokenEstimate, TokenizeRequest,
    TokenizeResponse, TotalTokens,
};
use kimi_chat::Conversation;
use kimi_tokens::TokenId;

use crate::prepare::encode;
use crate::state::ReadyService;
use crate::telemetry::RequestId;
use crate::validate::{Prompt, RawPrompt, conversation_of};
use crate::{ApiError, App, AppConfig, json_body};

/// How many tokens a chat request's prompt has: built by the same code, so exactly what its usage will say.
pub(crate) async fn estimate(
    State(app): State<App>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<TokenEstimate>, ApiError> {
    let service = app.service()?;
    let body = json_body::read(request, app.config().chat_body_limit).await?;
    let request: ChatCompletionRequest = json_body::parse_request(body, &service.names, &request_id).await?;
    service.names.check(&request.model)?;
    let prompt = Prompt::Chat(Box::new(conversation_of(request, app.policy())?));
    let total_tokens = encode(prompt, &service, &request_id).await?.tokens.len();
    Ok(Json(TokenEstimate { data: TotalTokens { total_tokens } }))
}

/// A text or a conversation as token ids.
pub(crate) async fn tokenize(
    State(app): State<App>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<TokenizeResponse>, ApiError> {
    let service = app.service()?;
    let body = json_body::read(request, AppConfig::BODY_LIMIT).await?;
    let request: TokenizeRequest = json_body::parse_request(body, &service.names, &request_id).await?;
    check_model(request.model.as_deref(), &service)?;
    let with_texts = request.return_token_strs == Some(true);
    let tokens = match (request.prompt.clone(), request.messages.is_some()) {
        (Some(text), false) if text.is_empty() => Vec::new(),
        (Some(text), false) => {
            let parse_special = request.parse_special.unwrap_or(true);
            let prompt = RawPrompt::Text { text, parse_special };
            encode(Prompt::Raw { prompt, show_markers: true }, &service, &request_id).await?.tokens
        }
        (None, true) => {
            let conversation = conversation(request, &app)?;
            encode(Prompt::Chat(Box::new(conversation)), &service, &request_id).await?.tokens
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
fn conversation(request: TokenizeRequest, app: &App) -> Result<Conversation, ApiError> {
    let opens_turn = request.add_generation_prompt.unwrap_or(true);
    let continues = request.continue_final_message == Some(true);
    let Some(mut chat) = request.into_chat() else {
        return Err(ApiError::invalid("Invalid request: messages must not be empty"));
    };
    if !continues && !opens_turn {
        chat.add_generation_prompt = None;
    }
    let conversation = conversation_of(chat, app.policy())?;
    Ok(Conversation { add_generation_prompt: opens_turn, ..conversation })
}

/// Token ids as text, special tokens by name.
pub(crate) async fn detokenize(
    State(app): State<App>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<DetokenizeResponse>, ApiError> {
    let service = app.service()?;
    let body = json_body::read(request, AppConfig::BODY_LIMIT).await?;
    let request: DetokenizeRequest = json_body::parse_request(body, &service.names, &request_id).await?;
    check_model(request.model.as_deref(), &service)?;
    let len = service.vocabulary.len();
    if let Some(id) = request.tokens.iter().find(|id| **id as usize >= len) {
        return Err(ApiError::invalid(format!(
            "Invalid request: tokens has the token id {id}; this model's ids are below {len}"
        )));
    }
    Ok(Json(DetokenizeResponse { prompt: service.vocabulary.decode(&request.tokens) }))
}

fn check_model(name: Option<&str>, service: &ReadyService) -> Result<(), ApiError> {
    name.map_or(Ok(()), |name| service.names.check(name))
}
