//! `POST /v1/completions`.

use axum::response::Response;
use kimi_api::CompletionRequest;

use super::exchange::Asked;
use super::seconds_since_1970;
use crate::ApiError;
use crate::completion_answer::{CompletionWriter, Echo};
use crate::prepare::Prepared;
use crate::validate::{ChatJob, CompletionJob, Prompt, RawPrompt, check_completion};

/// Continues raw prompts with plain text, whole or streamed. Everything but the prompt and the shape of the answer is the
/// chat route's.
pub(crate) async fn create_completion(
    Asked(request, exchange): Asked<CompletionRequest>,
) -> Result<Response, ApiError> {
    let CompletionJob { jobs, echo } = check_completion(request, &exchange.rules())?;

    let (style, notices) = (jobs[0].style.clone(), jobs[0].notices.clone());
    let mut echoes = Vec::new();
    let mut prompts = Vec::with_capacity(jobs.len());
    for job in jobs {
        let text = if echo { text_of(&job) } else { None };
        let prompt = Prepared::encode(job, exchange.desk()).await?;
        if echo {
            let decode = |tokens: &[_]| exchange.service.vocabulary.decode(tokens);
            let first_token = prompt.prompt_report.logprobs.map(|_| decode(&prompt.prompt_tokens()[..1]));
            let text = text.unwrap_or_else(|| decode(prompt.prompt_tokens()));
            echoes.push(Echo { text, first_token });
        }
        prompts.push(prompt);
    }
    let writer = CompletionWriter {
        id: format!("cmpl-{}", exchange.request_id),
        created: seconds_since_1970(),
        model: style.model,
        include_usage: style.include_usage,
        echoes,
        per_prompt: prompts[0].choices,
        offsets: Vec::new(),
    };
    exchange.answer_all(&prompts, style.stream, &notices, writer).await
}

/// The prompt as the client wrote it; `None` when it wrote ids.
fn text_of(job: &ChatJob) -> Option<String> {
    match &job.prompt {
        Prompt::Raw { prompt: RawPrompt::Text { text, .. }, .. } => Some(text.clone()),
        Prompt::Raw { .. } | Prompt::Chat(_) => None,
    }
}
