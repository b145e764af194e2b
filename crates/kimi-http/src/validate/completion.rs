//! Checks of a request for plain text: the shared keys by the chat route's rules, the others here.

use kimi_api::{CompletionRequest, Prompts, TextOrTokens};

use super::{
    AnswerStyle, ChatJob, Notices, Prompt, PromptReport, RawPrompt, Rules, Shape, note_without_effect,
    sampling,
};
use crate::{ApiError, Contract, Policy};

/// Tokens an answer may have when the request does not say; the route is older than long answers.
const DEFAULT_MAX_TOKENS: usize = 16;

/// Answers one request may ask for, all prompts together.
const MAX_ANSWERS: usize = 128;

/// A request for plain text that may run.
#[derive(Debug)]
pub(crate) struct CompletionJob {
    /// One for each prompt, the same but for it. Never empty.
    pub(crate) jobs: Vec<ChatJob>,
    /// Answers begin with their prompt.
    pub(crate) echo: bool,
}

/// Checks a request and fills in its defaults. The order of the checks is part of the contract: keys this route refuses,
/// prompt, sampling.
pub(crate) fn check_completion(
    request: CompletionRequest,
    rules: &Rules<'_>,
) -> Result<CompletionJob, ApiError> {
    // The hosted service does not have this route, so it has no rules for it.
    let rules = &Rules { policy: Policy::of(Contract::Open), ..*rules };
    let mut notices = Notices::default();
    check_supported(&request)?;
    let shared = request.shared();
    let echo = request.echo == Some(true);
    let show_markers = request.skip_special_tokens == Some(false);
    let prompts = raw_prompts(request.prompt, request.parse_special.unwrap_or(true), rules)?;

    let sampling = sampling::decide(&shared, true, rules, &mut notices)?;
    let choices = sampling::choices(&shared, rules)?;
    if prompts.len() * choices > MAX_ANSWERS {
        return Err(ApiError::invalid(format!(
            "Invalid request: prompt and n ask for {} answers; at most {MAX_ANSWERS} can be given to one request",
            prompts.len() * choices
        )));
    }
    note_without_effect(&shared, rules, &mut notices);
    // Whoever wants to know how likely the prompt is may ask for no answer. One token comes with it all the same.
    let no_answer = echo && shared.max_tokens == Some(0);
    let max_tokens = if no_answer { 1 } else { super::max_tokens(&shared)?.unwrap_or(DEFAULT_MAX_TOKENS) };
    let min_tokens = sampling::min_tokens(&shared, rules.policy, max_tokens)?;
    let logprobs = sampling::logprobs(&shared)?;
    let template = ChatJob {
        prompt: Prompt::Raw { prompt: RawPrompt::Tokens(Vec::new()), show_markers },
        choices,
        sampling,
        max_tokens,
        shape: Shape { min_tokens, ..Shape::default() },
        stops: sampling::stops(&shared, rules, &mut notices)?,
        prompt_report: PromptReport { logprobs: logprobs.filter(|_| echo), is_all: no_answer },
        logprobs,
        one_tool_call: false,
        hide_reasoning: false,
        cache_scope: rules.tenant.cache_scope(shared.cache_salt.as_deref()),
        standing: super::standing(shared.priority, rules),
        return_token_ids: shared.return_token_ids == Some(true),
        style: AnswerStyle {
            model: shared.model,
            stream: shared.stream,
            include_usage: shared.stream
                && shared.stream_options.is_some_and(|options| options.include_usage),
            reasoning_alias: false,
        },
        notices,
    };
    let job = |prompt| ChatJob { prompt: Prompt::Raw { prompt, show_markers }, ..template.clone() };
    let jobs = prompts.into_iter().map(job);
    Ok(CompletionJob { jobs: jobs.collect(), echo })
}

fn check_supported(request: &CompletionRequest) -> Result<(), ApiError> {
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::invalid(
            "Invalid request: suffix is not supported: this model was not trained to fill gaps",
        ));
    }
    if request.best_of.is_some_and(|best_of| best_of != request.n.unwrap_or(1)) {
        return Err(ApiError::invalid("Invalid request: best_of is not supported beyond n; use n"));
    }
    let Some(alternatives) = request.logprobs else { return Ok(()) };
    let limit = sampling::MAX_TOP_LOGPROBS;
    if usize::try_from(alternatives).is_ok_and(|alternatives| alternatives <= limit) {
        return Ok(());
    }
    Err(ApiError::invalid(format!("Invalid request: logprobs must be from 0 to {limit}, not {alternatives}")))
}

fn raw_prompts(
    Prompts(prompts): Prompts,
    parse_special: bool,
    rules: &Rules<'_>,
) -> Result<Vec<RawPrompt>, ApiError> {
    if prompts.is_empty() {
        return Err(ApiError::invalid("Invalid request: the prompt must not be empty"));
    }
    let raw = |prompt| match prompt {
        TextOrTokens::Text(text) => Ok(RawPrompt::Text { text, parse_special }),
        TextOrTokens::Tokens(ids) => {
            ids.iter().try_for_each(|id| sampling::check_token_id("prompt", *id, rules))?;
            Ok(RawPrompt::Tokens(ids))
        }
    };
    prompts.into_iter().map(raw).collect()
}
