//! From a request as written to a job as decided: defaults filled in, limits checked, in one fixed order.

mod completion;
mod format;
mod messages;
mod sampling;
mod thinking;
mod tools;

use kimi_api::ChatCompletionRequest;
use kimi_chat::{Conversation, StopStrings, Vocabulary};
use kimi_engine::{CacheScope, Sampling, Standing};
use kimi_guide::{AnswerFormat, CallRule};
use kimi_tokens::TokenId;

use crate::tenancy::TenantKey;
use crate::{ApiError, MediaRules, ModelNames, Policy};

pub(crate) use completion::{CompletionJob, check_completion};

/// Tokens an answer may have when the request does not say.
const DEFAULT_MAX_TOKENS: usize = 32_768;

/// What an answer tells of its prompt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PromptReport {
    /// `Some(n)`: log probabilities of its tokens and `n` alternatives.
    pub(crate) logprobs: Option<usize>,
    /// There is nothing else to the answer.
    pub(crate) is_all: bool,
}

/// A request that may run. Only [`check`] and [`check_completion`] make one.
#[derive(Clone, Debug)]
pub(crate) struct ChatJob {
    /// What the model is shown.
    pub(crate) prompt: Prompt,
    /// How many answers to it.
    pub(crate) choices: usize,
    /// How its tokens are chosen.
    pub(crate) sampling: Sampling,
    /// At most this many tokens; the room left in the context may allow fewer.
    pub(crate) max_tokens: usize,
    /// What ends the answer before that.
    pub(crate) stops: Stops,
    /// `Some(n)`: report log probabilities of the content's tokens and `n` alternatives.
    pub(crate) logprobs: Option<usize>,
    /// What is told of the prompt.
    pub(crate) prompt_report: PromptReport,
    /// What the answer must look like.
    pub(crate) shape: Shape,
    /// End after the first complete call.
    pub(crate) one_tool_call: bool,
    /// Leave the reasoning out of the answer.
    pub(crate) hide_reasoning: bool,
    /// Report the ids of the prompt and of every token.
    pub(crate) return_token_ids: bool,
    /// Whose computed prefixes it may begin with.
    pub(crate) cache_scope: Option<CacheScope>,
    /// Its turn in the queue.
    pub(crate) standing: Standing,
    /// How the answer is written down.
    pub(crate) style: AnswerStyle,
    /// What the client should know of keys that had no effect; goes into a header.
    pub(crate) notices: Notices,
}

/// What the model is shown.
#[derive(Clone, Debug)]
pub(crate) enum Prompt {
    /// A conversation, written in the model's chat format; the answer is read as the model's next message.
    Chat(Box<Conversation>),
    /// What the client wrote, as it is; the answer is plain text, with special tokens by name if `show_markers`.
    Raw { prompt: RawPrompt, show_markers: bool },
}

/// A prompt without chat format.
#[derive(Clone, Debug)]
pub(crate) enum RawPrompt {
    /// Text; `parse_special` says whether markers spelled in it are markers.
    Text { text: String, parse_special: bool },
    /// Token ids of the vocabulary.
    Tokens(Vec<TokenId>),
}

/// What an answer must look like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    /// The format of the content; `None` for free text.
    pub(crate) format: Option<AnswerFormat>,
    /// Whether tools are called.
    pub(crate) calls: CallRule,
    /// Only this tool may be called.
    pub(crate) only_tool: Option<String>,
    /// At most this many tokens of reasoning.
    pub(crate) thinking_budget: Option<usize>,
    /// The answer does not end before so many tokens.
    pub(crate) min_tokens: usize,
}

/// What ends an answer.
#[derive(Clone, Debug)]
pub(crate) struct Stops {
    /// Texts.
    pub(crate) strings: StopStrings,
    /// Tokens, beside the end token.
    pub(crate) token_ids: Vec<TokenId>,
    /// The text or token that ended the answer is part of it.
    pub(crate) included: bool,
    /// The end token does not.
    pub(crate) ignore_eos: bool,
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
#[derive(Clone, Debug, Default)]
pub(crate) struct Notices(Vec<String>);

impl Notices {
    /// Notes that `key` had no effect.
    pub(crate) fn ignored(&mut self, key: &'static str) {
        metrics::counter!(crate::metrics::IGNORED_PARAMS_TOTAL, "name" => key).increment(1);
        self.0.push(format!("ignored {key}"));
    }

    /// Notes that none of these `keys` had an effect.
    pub(crate) fn ignored_all(&mut self, keys: Vec<&'static str>) {
        for key in keys {
            self.ignored(key);
        }
    }

    /// Notes that these keys, which look like thinking switches, switched nothing. They are the client's words, so only
    /// some of them, and only what a header can hold, are said back.
    pub(crate) fn unknown_switches<'a>(&mut self, keys: impl Iterator<Item = &'a str>) {
        const AT_MOST: usize = 8;
        let is_name = |key: &&str| key.len() <= 64 && key.bytes().all(|byte| byte.is_ascii_graphic());
        self.0.extend(keys.filter(is_name).take(AT_MOST).map(|key| format!("ignored {key}")));
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
    pub(crate) vocabulary: &'a Vocabulary,
    /// Who asks.
    pub(crate) tenant: TenantKey,
    /// The most answers to one prompt.
    pub(crate) max_n: usize,
    /// Answers carry `reasoning` beside `reasoning_content`, whatever the model's name.
    pub(crate) reasoning_alias: bool,
    /// Which images and videos it may have.
    pub(crate) media: MediaRules<'a>,
}

/// Hop 2 of 9. Checks a request and fills in its defaults.
///
/// The order of the checks is part of the contract, so that a request with two mistakes always gets the same answer:
/// messages, thinking, sampling, tools, tool choice, response format. The model is checked before, where the request is
/// read; the length of the prompt after, where it is encoded.
pub(crate) fn check(mut request: ChatCompletionRequest, rules: &Rules<'_>) -> Result<ChatJob, ApiError> {
    let mut notices = Notices::default();
    messages::check(&request.messages, rules.media)?;
    messages::continue_final(&mut request)?;
    let thinking = thinking::decide(&request, rules.policy, &mut notices)?;
    if thinking.enabled {
        messages::note_missing_reasoning(&request.messages, &mut notices);
    }
    let sampling = sampling::decide(&request, thinking.enabled, rules, &mut notices)?;
    let choices = sampling::choices(&request, rules)?;
    let max_tokens = max_tokens(&request)?.unwrap_or(DEFAULT_MAX_TOKENS);
    let stops = sampling::stops(&request, rules, &mut notices)?;
    let logprobs = sampling::logprobs(&request)?;
    let tools = tools::take_declared(&mut request, rules.policy)?;
    // Tools that must not be called stay in the prompt, so that its cached prefix survives.
    let (calls, only_tool) = tools::calls(&request, &tools, thinking.enabled, rules.policy)?;
    let shape = Shape {
        format: format::decide(&request, rules.policy, &mut notices)?,
        calls,
        only_tool,
        thinking_budget: thinking.budget,
        min_tokens: sampling::min_tokens(&request, rules.policy, max_tokens)?,
    };
    note_without_effect(&request, rules, &mut notices);

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
        prompt: Prompt::Chat(Box::new(conversation)),
        choices,
        sampling,
        max_tokens,
        stops,
        return_token_ids: rules.policy.extensions && request.return_token_ids == Some(true),
        logprobs,
        shape,
        hide_reasoning: thinking.hidden,
        prompt_report: PromptReport::default(),
        one_tool_call: request.parallel_tool_calls == Some(false),
        cache_scope: rules.tenant.cache_scope(request.cache_salt.as_deref()),
        standing: standing(request.priority, rules),
        style,
        notices,
    })
}

/// The conversation a chat request describes, by the same rules as over HTTP: for looking at prompts without a server.
///
/// # Errors
/// What the server would answer to these messages, thinking switches or tools.
pub fn conversation_of(
    mut request: ChatCompletionRequest,
    policy: Policy,
    media: MediaRules<'_>,
) -> Result<Conversation, ApiError> {
    messages::check(&request.messages, media)?;
    messages::continue_final(&mut request)?;
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

/// How long the answer may be, if the request says so.
fn max_tokens(request: &ChatCompletionRequest) -> Result<Option<usize>, ApiError> {
    let (name, asked) = match (request.max_completion_tokens, request.max_tokens) {
        (Some(asked), _) => ("max_completion_tokens", asked),
        (None, Some(asked)) => ("max_tokens", asked),
        (None, None) => return Ok(None),
    };
    match usize::try_from(asked) {
        Ok(asked) if asked > 0 => Ok(Some(asked)),
        _ => Err(ApiError::invalid(format!("Invalid request: {name} must be at least 1, not {asked}"))),
    }
}

/// Lower goes first; an extension.
fn standing(priority: Option<i64>, rules: &Rules<'_>) -> Standing {
    rules.tenant.standing(priority.filter(|_| rules.policy.extensions).unwrap_or(0))
}

/// What is understood and does nothing here, or nothing yet. Keys that only the client or the operator of a hosted service
/// cares about (`user`, `metadata`) and hints (`prompt_cache_key`, `prediction`) are not worth a word.
fn note_without_effect(request: &ChatCompletionRequest, rules: &Rules<'_>, notices: &mut Notices) {
    let sent = [
        ("agent", request.agent.is_some()),
        ("priority", !rules.policy.extensions && request.priority.is_some_and(|priority| priority != 0)),
    ];
    for (name, _) in sent.into_iter().filter(|(_, sent)| *sent) {
        notices.ignored(name);
    }
}
