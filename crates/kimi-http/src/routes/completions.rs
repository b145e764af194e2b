//! `POST /v1/completions`.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use kimi_api::CompletionRequest;

use super::chat::{rules, seconds_since_1970, with_notices};
use crate::auth::Caller;
use crate::choices::Choices;
use crate::completion_answer::{CompletionWriter, collect};
use crate::prepare::Prepared;
use crate::sse::respond;
use crate::telemetry::RequestId;
use crate::validate::{ChatJob, CompletionJob, Prompt, RawPrompt, check_completion};
use crate::{ApiError, App, json_body};

/// Continues raw prompts with plain text, whole or streamed. Everything but the prompt and the shape of the answer is the
/// chat route's.
pub(crate) async fn create_completion(
    State(app): State<App>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let running = app.running().token();
    let service = app.service()?;
    let body = json_body::read(request, app.config().chat_body_limit).await?;
    let request: CompletionRequest = json_body::parse_request(body, &service.names, &request_id).await?;
    let CompletionJob { jobs, echo } = check_completion(request, &rules(&app, &service, caller))?;

    let (style, notices) = (jobs[0].style.clone(), jobs[0].notices.clone());
    let mut echoes = Vec::new();
    let mut prompts = Vec::with_capacity(jobs.len());
    for job in jobs {
        let text = if echo { text_of(&job) } else { None };
        let prompt = Prepared::encode(job, &service, &request_id).await?;
        if echo {
            echoes.push(text.unwrap_or_else(|| service.vocabulary.decode(prompt.prompt_tokens())));
        }
        prompts.push(prompt);
    }
    let choices = Choices::submit(&prompts, &service, &request_id, &running)?;
    let writer = CompletionWriter {
        id: format!("cmpl-{request_id}"),
        created: seconds_since_1970(),
        model: style.model,
        include_usage: style.include_usage,
        echoes,
        per_prompt: prompts[0].choices,
        offsets: Vec::new(),
    };
    let response = if style.stream {
        respond(choices, writer, app.config().keep_alive)
    } else {
        Json(collect(choices, writer).await?).into_response()
    };
    Ok(with_notices(response, &notices))
}

/// The prompt as the client wrote it; `None` when it wrote ids.
fn text_of(job: &ChatJob) -> Option<String> {
    match &job.prompt {
        Prompt::Raw { prompt: RawPrompt::Text { text, .. }, .. } => Some(text.clone()),
        Prompt::Raw { .. } | Prompt::Chat(_) => None,
    }
}
