//! From a request as written to a job as decided: defaults filled in, limits checked, in one fixed order.

mod messages;
mod sampling;
mod thinking;
mod tools;

use kimi_api::{ChatCompletionRequest, ResponseFormatKind};
use kimi_chat::{Conversation, Markers, StopStrings, Vocabulary};
use kimi_engine::Sampling;
use kimi_tokens::TokenId;

use crate::{ApiError, ModelNames, Policy};

/// Tokens an answer may have when the request does not say.
const DEFAULT_MAX_TOKENS: usize = 32_768;

/// A request that may run. Only [`check`] makes one.
#[derive(Debug)]
pub(crate) struct ChatJob {
    /// What the model is shown.
    pub(crate) conversation: Conversation,
    /// How its tokens are chosen.
    pub(crate) sampling: Sampling,
    /// At most this many tokens; the room left in the context may allow fewer.
    pub(crate) max_tokens: usize,
    /// Texts that end the answer and are not part of it.
    pub(crate) stop_strings: StopStrings,
    /// Tokens that end the answer and are not part of it, beside the end token.
    pub(crate) stop_token_ids: Vec<TokenId>,
    /// Go on after the end token until `max_tokens`.
    pub(crate) ignore_eos: bool,
    /// `Some(n)`: report log probabilities of the content's tokens and `n` alternatives.
    pub(crate) logprobs: Option<usize>,
    /// End after the first complete call.
    pub(crate) one_tool_call: bool,
    /// Leave the reasoning out of the answer.
    pub(crate) hide_reasoning: bool,
    /// How the answer is written down.
    pub(crate) style: AnswerStyle,
    /// What the client should know of keys that had no effect; goes into a header.
    pub(crate) notices: Notices,
}

/// How an answer is written down.
#[derive(Clone, Debug)]
pub(crate) struct AnswerStyle {
    /// The model's name as the request spelled it.
    pub(crate) model: String,
    /// As server-sent events.
    pub(crate) stream: bool,
    /// With a last chunk that carries the usage.
    pub(crate) include_usage: bool,
    /// The reasoning under its second name, too.
    pub(crate) reasoning_alias: bool,
}

/// Keys that were understood but had no effect.
#[derive(Debug, Default)]
pub(crate) struct Notices(Vec<String>);

impl Notices {
    /// Notes that `key` had no effect.
    fn ignored(&mut self, key: &'static str) {
        metrics::counter!(crate::metrics::IGNORED_PARAMS_TOTAL, "name" => key).increment(1);
        self.0.push(format!("ignored {key}"));
    }

    fn note(&mut self, text: String) {
        self.0.push(text);
    }

    /// The value of the `x-kimi-notice` header, if there is anything to say.
    pub(crate) fn header(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join("; "))
    }
}

/// What a request is checked against.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) policy: Policy,
    pub(crate) names: &'a ModelNames,
    pub(crate) vocabulary: &'a Vocabulary,
    pub(crate) markers: &'a Markers,
    /// Answers carry `reasoning` beside `reasoning_content`, whatever the model's name.
    pub(crate) reasoning_alias: bool,
}

/// Hop 2 of 9. Checks a request and fills in its defaults.
///
/// The order of the checks is part of the contract, so that a request with two mistakes always gets the same answer:
/// model, messages, thinking, sampling, tools, tool choice, response format. The length of the prompt is checked where
/// the prompt is encoded.
pub(crate) fn check(mut request: ChatCompletionRequest, rules: &Rules<'_>) -> Result<ChatJob, ApiError> {
    let mut notices = Notices::default();
    rules.names.check(&request.model)?;
    messages::check(&request.messages)?;
    let thinking = thinking::decide(&request, rules.policy, &mut notices)?;
    if thinking.enabled {
        messages::note_missing_reasoning(&request.messages, &mut notices);
    }
    let mut sampling = sampling::decide(&request, thinking.enabled, rules, &mut notices)?;
    let max_tokens = max_tokens(&request)?;
    let stop_strings = sampling::stop_strings(&request)?;
    let stop_token_ids = sampling::stop_token_ids(&request, rules, &mut notices)?;
    let logprobs = sampling::logprobs(&request)?;
    let tools = tools::take_declared(&mut request, rules.policy)?;
    if tools::forbidden(&request, &tools, thinking.enabled, rules.policy)? {
        // The tools stay in the prompt, so that its cached prefix survives; the model just cannot open a call.
        sampling.logit_bias.push((rules.markers.tool_calls_section_begin, tools::NEVER));
    }
    check_response_format(&request)?;
    if request.agent.is_some() {
        notices.ignored("agent");
    }

    let style = AnswerStyle {
        reasoning_alias: rules.reasoning_alias || ModelNames::wants_reasoning_alias(&request.model),
        model: request.model,
        stream: request.stream,
        include_usage: request.stream && request.stream_options.is_some_and(|options| options.include_usage),
    };
    let conversation = Conversation {
        messages: request.messages,
        tools,
        thinking: thinking.enabled,
        preserve_thinking: thinking.keep_all,
        add_generation_prompt: true,
    };
    Ok(ChatJob {
        conversation,
        sampling,
        max_tokens,
        stop_strings,
        stop_token_ids,
        ignore_eos: rules.policy.extensions && request.ignore_eos == Some(true),
        logprobs,
        hide_reasoning: thinking.hidden,
        one_tool_call: request.parallel_tool_calls == Some(false),
        style,
        notices,
    })
}

/// The conversation a chat request describes, by the same rules as over HTTP: for looking at prompts without a server.
///
/// # Errors
/// What the server would answer to these messages, thinking switches or tools.
pub fn conversation_of(mut request: ChatCompletionRequest, policy: Policy) -> Result<Conversation, ApiError> {
    messages::check(&request.messages)?;
    let thinking = thinking::decide(&request, policy, &mut Notices::default())?;
    let tools = tools::take_declared(&mut request, policy)?;
    Ok(Conversation {
        messages: request.messages,
        tools,
        thinking: thinking.enabled,
        preserve_thinking: thinking.keep_all,
        add_generation_prompt: true,
    })
}

fn max_tokens(request: &ChatCompletionRequest) -> Result<usize, ApiError> {
    let (name, asked) = match (request.max_completion_tokens, request.max_tokens) {
        (Some(asked), _) => ("max_completion_tokens", asked),
        (None, Some(asked)) => ("max_tokens", asked),
        (None, None) => return Ok(DEFAULT_MAX_TOKENS),
    };
    match usize::try_from(asked) {
        Ok(asked) if asked > 0 => Ok(asked),
        _ => Err(ApiError::invalid(format!("Invalid request: {name} must be at least 1, not {asked}"))),
    }
}

fn check_response_format(request: &ChatCompletionRequest) -> Result<(), ApiError> {
    let name = match request.response_format.as_ref().map(|format| format.kind) {
        None | Some(ResponseFormatKind::Text) => return Ok(()),
        Some(ResponseFormatKind::JsonObject) => "json_object",
        Some(ResponseFormatKind::JsonSchema) => "json_schema",
    };
    Err(ApiError::invalid(format!(
        "Invalid request: response_format '{name}' is not supported by this server yet; ask for the format in the prompt"
    )))
}
