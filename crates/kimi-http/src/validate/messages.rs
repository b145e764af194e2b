//! Checks of the conversation itself.

use kimi_api::{ChatCompletionRequest, ChatMessage, Content, Part, Role};

use super::Notices;
use crate::{ApiError, MediaRules};

/// Characters a message's `name` may have; it becomes part of the prompt's header.
const MAX_NAME_CHARS: usize = 64;

/// Messages of a conversation. Longer ones fit no context.
const MAX_MESSAGES: usize = 16_384;

/// Parts of one message's content.
const MAX_PARTS: usize = 1024;

/// Calls of one message.
const MAX_TOOL_CALLS: usize = 1024;

/// Checks every message. What only the prompt builder can judge (calls and their results, partial mode) is checked there.
pub(super) fn check(messages: &[ChatMessage], media: MediaRules<'_>) -> Result<(), ApiError> {
    if messages.is_empty() {
        return Err(ApiError::invalid("Invalid request: messages must not be empty"));
    }
    check_count("messages", messages.len(), MAX_MESSAGES)?;
    for (index, message) in messages.iter().enumerate() {
        if let Some(Content::Parts(parts)) = &message.content {
            check_count(&format!("messages[{index}].content"), parts.len(), MAX_PARTS)?;
        }
        check_count(&format!("messages[{index}].tool_calls"), message.tool_calls.len(), MAX_TOOL_CALLS)?;
        check_parts(message, media)?;
        check_emptiness(index, message)?;
        check_name(index, message)?;
        if message.role == Role::Tool && message.tool_call_id.as_deref().unwrap_or_default().is_empty() {
            return Err(ApiError::invalid(format!(
                "Invalid request: the tool message at position {index} must have a tool_call_id"
            )));
        }
    }
    Ok(())
}

/// `continue_final_message` is another spelling of `partial` on the last message.
pub(super) fn continue_final(request: &mut ChatCompletionRequest) -> Result<(), ApiError> {
    match (request.continue_final_message == Some(true), request.add_generation_prompt) {
        (true, Some(true)) => Err(ApiError::invalid(
            "Invalid request: continue_final_message and add_generation_prompt cannot both be true",
        )),
        (false, Some(false)) => Err(ApiError::invalid(
            "Invalid request: add_generation_prompt: false needs continue_final_message: true, since the model must have \
             something to continue",
        )),
        (false, _) => Ok(()),
        (true, _) => {
            let last = request.messages.last_mut().filter(|message| message.role == Role::Assistant);
            let last = last.ok_or_else(|| {
                ApiError::invalid(
                    "Invalid request: continue_final_message: true needs a last message with role 'assistant'",
                )
            })?;
            last.partial = true;
            Ok(())
        }
    }
}

fn check_count(name: &str, count: usize, limit: usize) -> Result<(), ApiError> {
    if count <= limit {
        return Ok(());
    }
    Err(ApiError::invalid(format!("Invalid request: {name} may have at most {limit} entries, not {count}")))
}

fn check_parts(message: &ChatMessage, media: MediaRules<'_>) -> Result<(), ApiError> {
    let Some(Content::Parts(parts)) = &message.content else { return Ok(()) };
    for part in parts {
        match part {
            Part::Text { .. } => {}
            Part::ImageUrl { image_url } => media.check("image", &image_url.url)?,
            Part::VideoUrl { video_url } => media.check("video", &video_url.url)?,
            Part::Other { kind } => {
                return Err(ApiError::invalid(format!(
                    "Invalid request: a content part of type {kind:?} is not supported; use \"text\" with its key `text`"
                )));
            }
        }
    }
    Ok(())
}

/// Only an assistant may say nothing: beside its tool calls, or as a prefix to continue.
fn check_emptiness(index: usize, message: &ChatMessage) -> Result<(), ApiError> {
    let empty = message.content.as_ref().is_none_or(Content::is_empty);
    // A message may carry nothing but tool declarations.
    let declares_tools = message.role == Role::System && !message.tools.is_empty();
    if !empty || message.role == Role::Assistant || declares_tools {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "Invalid request: the message at position {index} with role '{}' must not be empty",
        message.role
    )))
}

fn check_name(index: usize, message: &ChatMessage) -> Result<(), ApiError> {
    let Some(name) = &message.name else { return Ok(()) };
    if name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "Invalid request: the name of the message at position {index} may have at most {MAX_NAME_CHARS} characters and \
         no control characters"
    )))
}

/// Tells the client, and the operator who hears complaints about answers, when it dropped the reasoning of a running tool
/// loop: the model answers worse without it.
pub(super) fn note_missing_reasoning(messages: &[ChatMessage], notices: &mut Notices) {
    let is_answer = |message: &ChatMessage| message.role == Role::Assistant && message.tool_calls.is_empty();
    let loop_start = messages.iter().rposition(is_answer).map_or(0, |answer| answer + 1);
    let missing = messages[loop_start..]
        .iter()
        .position(|message| message.role == Role::Assistant && message.thoughts().is_none());
    if let Some(offset) = missing {
        let index = loop_start + offset;
        tracing::warn!(
            index,
            "the client dropped the reasoning_content of a running tool loop; answers get worse without it"
        );
        notices.note(format!("reasoning_content is missing in assistant tool call message at index {index}"));
    }
}
