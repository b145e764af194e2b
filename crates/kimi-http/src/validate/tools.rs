//! Checks of the declared tools and of how they are to be used.

use kimi_api::{ChatCompletionRequest, Tool, ToolChoice, ToolKind};
use kimi_guide::CallRule;

use crate::{ApiError, Policy};

const MAX_NAME_BYTES: usize = 128;

/// Takes the request's tools out of it, with those that messages declare.
pub(super) fn take_declared(
    request: &mut ChatCompletionRequest,
    policy: Policy,
) -> Result<Vec<Tool>, ApiError> {
    if request.functions.is_some() || request.function_call.is_some() {
        return Err(ApiError::invalid(
            "Invalid request: functions and function_call are not supported; use tools and tool_choice",
        ));
    }
    let mut tools = std::mem::take(&mut request.tools);
    check(&tools, policy)?;
    let count = tools.len();
    for tool in request.messages.iter().flat_map(|message| &message.tools) {
        // The same declaration may come again with every turn.
        if !tools.contains(tool) {
            tools.push(tool.clone());
        }
    }
    if tools.len() > count {
        check(&tools, policy)?;
    }
    Ok(tools)
}

fn check(tools: &[Tool], policy: Policy) -> Result<(), ApiError> {
    if tools.len() > policy.max_tools {
        return Err(ApiError::invalid(format!(
            "Invalid request: tools may have at most {} entries, not {}",
            policy.max_tools,
            tools.len()
        )));
    }
    let mut names = std::collections::BTreeSet::new();
    for tool in tools {
        let name = &tool.function.name;
        if tool.kind == ToolKind::BuiltinFunction {
            return Err(ApiError::invalid(format!(
                "builtin_function {name} is not supported by this server"
            )));
        }
        if !is_name(name) {
            return Err(ApiError::invalid(
                "Invalid request: function name is invalid, must start with a letter and can contain letters, numbers, \
                 underscores, and dashes",
            ));
        }
        if !names.insert(name) {
            return Err(ApiError::invalid(format!("Invalid request: function name {name} is duplicated")));
        }
        if tool
            .function
            .parameters
            .as_ref()
            .is_some_and(|parameters| !parameters.is_object() && !parameters.is_null())
        {
            return Err(ApiError::invalid(format!(
                "Invalid request: the parameters of function {name} must be a JSON schema, which is an object"
            )));
        }
    }
    Ok(())
}

/// `[A-Za-z_][A-Za-z0-9_-]{0,127}`
fn is_name(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let goes_on = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    starts && goes_on && name.len() <= MAX_NAME_BYTES
}

/// Whether tools are called, and the one that must be if one is named.
pub(super) fn calls(
    request: &ChatCompletionRequest,
    tools: &[Tool],
    thinking: bool,
    policy: Policy,
) -> Result<(CallRule, Option<String>), ApiError> {
    // The hosted service calls a named choice 'specified'.
    let (choice, hosted_name, name) = match &request.tool_choice {
        None | Some(ToolChoice::Auto) => return Ok((CallRule::Free, None)),
        Some(ToolChoice::None) => return Ok((CallRule::Forbidden, None)),
        Some(ToolChoice::Required) => ("required", "required", None),
        Some(ToolChoice::Function(name)) => {
            if !tools.iter().any(|tool| tool.function.name == *name) {
                return Err(ApiError::invalid(format!(
                    "Invalid request: tool_choice names the function {name}, which tools does not declare"
                )));
            }
            ("function", "specified", Some(name.clone()))
        }
    };
    if tools.is_empty() {
        return Err(ApiError::invalid(format!("Invalid request: tool_choice '{choice}' needs tools")));
    }
    if thinking && policy.fixed_sampling {
        return Err(ApiError::invalid(format!(
            "tool_choice '{hosted_name}' is incompatible with thinking enabled"
        )));
    }
    Ok((CallRule::Required, name))
}
