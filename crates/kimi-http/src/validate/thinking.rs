//! Whether the model thinks first: six spellings of one switch.

use kimi_api::{ChatCompletionRequest, ReasoningEffort, ThinkingKeep, ThinkingKind};

use super::Notices;
use crate::{ApiError, Policy};

/// What the request's switches come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thinking {
    /// The model thinks before it answers.
    pub(super) enabled: bool,
    /// The reasoning of every earlier turn stays in the prompt, not only that of a running tool loop.
    pub(super) keep_all: bool,
    /// The model thinks, but the answer does not show it.
    pub(super) hidden: bool,
    /// It thinks for at most so many tokens.
    pub(super) budget: Option<usize>,
}

/// Reads all switches. Absent: on. Contradicting each other: 400.
pub(super) fn decide(
    request: &ChatCompletionRequest,
    policy: Policy,
    notices: &mut Notices,
) -> Result<Thinking, ApiError> {
    if policy.strict_thinking {
        check_documented(request)?;
    }
    let switches = switches(request, policy, notices);
    let enabled = switches.first().is_none_or(|(_, on)| *on);
    if let (Some((first, _)), Some((other, _))) =
        (switches.first(), switches.iter().find(|(_, on)| *on != enabled))
    {
        let (on, off) = if enabled { (first, other) } else { (other, first) };
        return Err(ApiError::invalid(format!(
            "Invalid request: {on} turns thinking on and {off} turns it off; send one of them"
        )));
    }
    let unknown = request.thinking.iter().flat_map(|thinking| thinking.unknown.keys());
    let unknown: Vec<String> = unknown.map(|key| format!("thinking.{key}")).collect();
    notices.unknown_switches(unknown.iter().map(String::as_str));
    let budget = budget(request, policy, notices)?;

    let kwargs = request.chat_template_kwargs.unwrap_or_default();
    let keep_all = match request.thinking.as_ref().and_then(|thinking| thinking.keep) {
        Some(ThinkingKeep::All) => true,
        None => kwargs.preserve_thinking.or(kwargs.clear_thinking.map(|clear| !clear)).unwrap_or(false),
    };
    let hidden = request.reasoning.as_ref().is_some_and(|reasoning| reasoning.exclude == Some(true));
    Ok(Thinking { enabled, keep_all, hidden, budget })
}

/// The hosted service knows two types and two keys.
fn check_documented(request: &ChatCompletionRequest) -> Result<(), ApiError> {
    let Some(thinking) = &request.thinking else { return Ok(()) };
    if thinking.kind == ThinkingKind::Adaptive {
        return Err(ApiError::invalid("Invalid request: thinking.type must be 'enabled' or 'disabled'"));
    }
    let budget = thinking.budget_tokens.map(|_| "budget_tokens");
    match budget.or(thinking.unknown.keys().next().map(String::as_str)) {
        Some(key) => Err(ApiError::invalid(format!("Invalid request: thinking has an unknown key '{key}'"))),
        None => Ok(()),
    }
}

/// Every switch that was sent, in the order in which they count.
fn switches(
    request: &ChatCompletionRequest,
    policy: Policy,
    notices: &mut Notices,
) -> Vec<(&'static str, bool)> {
    let kwargs = request.chat_template_kwargs.unwrap_or_default();
    let reasoning = request.reasoning.as_ref();
    let effort = match request.reasoning_effort {
        Some(_) if !policy.extensions => {
            notices.ignored("reasoning_effort");
            None
        }
        effort => effort,
    };
    let thinks = |effort| effort != ReasoningEffort::None;
    [
        ("thinking", request.thinking.as_ref().map(|thinking| thinking.kind != ThinkingKind::Disabled)),
        ("chat_template_kwargs.thinking", kwargs.thinking),
        ("chat_template_kwargs.enable_thinking", kwargs.enable_thinking),
        ("enable_thinking", request.enable_thinking),
        ("reasoning.enabled", reasoning.and_then(|reasoning| reasoning.enabled)),
        ("reasoning.effort", reasoning.and_then(|reasoning| reasoning.effort).map(thinks)),
        ("reasoning_effort", effort.map(thinks)),
    ]
    .into_iter()
    .filter_map(|(name, on)| on.map(|on| (name, on)))
    .collect()
}

/// The most tokens of reasoning, if the request limits them: four spellings that must agree.
fn budget(
    request: &ChatCompletionRequest,
    policy: Policy,
    notices: &mut Notices,
) -> Result<Option<usize>, ApiError> {
    let nested = request.thinking.as_ref().and_then(|thinking| thinking.budget_tokens);
    let reasoning = request.reasoning.as_ref().and_then(|reasoning| reasoning.max_tokens);
    let sent = [
        ("thinking.budget_tokens", nested),
        ("thinking_budget", request.thinking_budget),
        ("thinking_token_budget", request.thinking_token_budget),
        ("reasoning.max_tokens", reasoning),
    ];
    let mut decided: Option<(&str, i64)> = None;
    for (name, asked) in sent.into_iter().filter_map(|(name, asked)| asked.map(|asked| (name, asked))) {
        if !policy.extensions {
            notices.ignored(name);
            continue;
        }
        if asked < 1 {
            return Err(ApiError::invalid(format!(
                "Invalid request: {name} must be at least 1, not {asked}; to turn thinking off, send \
                 \"thinking\": {{\"type\": \"disabled\"}}"
            )));
        }
        if let Some((first, other)) = decided.filter(|(_, other)| *other != asked) {
            return Err(ApiError::invalid(format!(
                "Invalid request: {first} is {other} and {name} is {asked}; send one of them"
            )));
        }
        decided.get_or_insert((name, asked));
    }
    Ok(decided.and_then(|(_, asked)| usize::try_from(asked).ok()))
}
