//! A request of the Responses API as a chat request.

use kimi_api::responses::{InputItem, ResponsesRequest, TextPart};
use kimi_api::{
    Arguments, ChatCompletionRequest, ChatMessage, Content, FunctionCall, ResponseFormat, Role, Tool,
    ToolCall, ToolCallKind,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Echo;
use crate::ApiError;
use crate::anthropic::tool;

/// A chat request, what the answer repeats of the original, and what of it has no counterpart.
pub(crate) struct Translated {
    pub(crate) request: ChatCompletionRequest,
    pub(crate) echo: Echo,
    pub(crate) ignored: Vec<&'static str>,
}

/// The value of `include` that asks for log probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";

/// Translates a request. What it asks for is judged where chat requests are.
pub(crate) fn to_chat(request: ResponsesRequest) -> Result<Translated, ApiError> {
    check_stateless(&request)?;
    let echo = Echo::of(&request);
    let mut ignored = Vec::new();
    if request.truncation.as_deref().is_some_and(|rule| rule != "disabled") {
        ignored.push("truncation");
    }
    let tools = tools(request.tools, &mut ignored)?;
    let format = request.text.and_then(|text| text.format);
    let logprobs = request.top_logprobs.is_some() || request.include.iter().any(|what| what == LOGPROBS);
    let request = ChatCompletionRequest {
        model: request.model,
        messages: messages(request.instructions, request.input.0)?,
        max_completion_tokens: request.max_output_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        stream: request.stream,
        tools,
        tool_choice: request.tool_choice.map(|choice| choice.choice),
        parallel_tool_calls: request.parallel_tool_calls,
        reasoning_effort: request.reasoning.and_then(|reasoning| reasoning.effort),
        response_format: format.map(response_format).transpose()?,
        logprobs: logprobs.then_some(true),
        top_logprobs: request.top_logprobs,
        ..ChatCompletionRequest::default()
    };
    Ok(Translated { request, echo, ignored })
}

/// Nothing is kept between requests, so nothing kept can be gone on from.
fn check_stateless(request: &ResponsesRequest) -> Result<(), ApiError> {
    let stateful = [
        ("previous_response_id", request.previous_response_id.is_some()),
        ("conversation", request.conversation.is_some()),
        ("prompt", request.prompt.is_some()),
        ("background", request.background == Some(true)),
    ];
    match stateful.into_iter().find(|(_, asked)| *asked) {
        Some((key, _)) => Err(ApiError::invalid(format!(
            "Invalid request: {key} is not supported: this server stores no responses; send the whole conversation as \
             input"
        ))),
        None => Ok(()),
    }
}

/// The conversation. Thoughts, text and calls that follow each other are one message of the assistant's.
fn messages(instructions: Option<String>, items: Vec<InputItem>) -> Result<Vec<ChatMessage>, ApiError> {
    let mut messages = Vec::with_capacity(items.len() + 1);
    if let Some(instructions) = instructions.filter(|text| !text.is_empty()) {
        messages.push(ChatMessage::text(Role::System, instructions));
    }
    // The assistant's message that the next item may still belong to.
    let mut turn: Option<ChatMessage> = None;
    for item in items {
        match item {
            InputItem::Reasoning { content, summary } => {
                think(open(&mut turn, &mut messages, has_spoken), content, summary);
            }
            InputItem::Message { role: Role::Assistant, content } => {
                open(&mut turn, &mut messages, has_spoken).content = Some(content);
            }
            InputItem::FunctionCall { call_id, name, arguments } => {
                let function = FunctionCall { name, arguments: Arguments::Text(arguments) };
                let call = ToolCall { id: call_id, kind: ToolCallKind::Function, function };
                open(&mut turn, &mut messages, |_| false).tool_calls.push(call);
            }
            InputItem::Message { role, content } => {
                messages.extend(turn.take());
                messages.push(ChatMessage { content: Some(content), ..ChatMessage::text(role, "") });
            }
            InputItem::FunctionCallOutput { call_id, output } => {
                messages.extend(turn.take());
                messages.push(tool_message(call_id, output));
            }
            InputItem::Other { kind } => return Err(unknown_item(&kind)),
        }
    }
    messages.extend(turn);
    Ok(messages)
}

/// The open message of the assistant's; a new one when there is none or `full` says that it takes no more.
fn open<'a>(
    turn: &'a mut Option<ChatMessage>,
    messages: &mut Vec<ChatMessage>,
    full: impl Fn(&ChatMessage) -> bool,
) -> &'a mut ChatMessage {
    if turn.as_ref().is_some_and(full) {
        messages.extend(turn.take());
    }
    turn.get_or_insert_with(|| ChatMessage { content: None, ..ChatMessage::text(Role::Assistant, "") })
}

fn has_spoken(turn: &ChatMessage) -> bool {
    turn.content.is_some() || !turn.tool_calls.is_empty()
}

/// Thoughts in their own words if they were echoed, else their summary.
fn think(turn: &mut ChatMessage, content: Vec<TextPart>, summary: Vec<TextPart>) {
    let parts = if content.is_empty() { summary } else { content };
    turn.reasoning_content.get_or_insert_default().extend(parts.into_iter().map(|part| part.text));
}

fn tool_message(call_id: String, output: Content) -> ChatMessage {
    // The chat format has no empty results.
    let output = if output.is_empty() { Content::Text("(no output)".into()) } else { output };
    ChatMessage { content: Some(output), tool_call_id: Some(call_id), ..ChatMessage::text(Role::Tool, "") }
}

fn unknown_item(kind: &str) -> ApiError {
    ApiError::invalid(format!(
        "Invalid request: an input item of type {kind:?} is not supported; use message, reasoning, function_call and \
         function_call_output"
    ))
}

fn tools(params: Vec<Value>, ignored: &mut Vec<&'static str>) -> Result<Vec<Tool>, ApiError> {
    #[derive(Deserialize)]
    struct Function {
        name: String,
        description: Option<String>,
        parameters: Option<Value>,
        strict: Option<bool>,
    }
    let mut tools = Vec::with_capacity(params.len());
    for param in params {
        if param.get("type").is_some_and(|kind| kind != "function") {
            if !ignored.contains(&"tools of other services") {
                ignored.push("tools of other services");
            }
            continue;
        }
        let function = Function::deserialize(param)
            .map_err(|error| ApiError::invalid(format!("Invalid request: tools: {error}")))?;
        tools.push(tool(function.name, function.description, function.parameters, function.strict)?);
    }
    Ok(tools)
}

/// The chat API has the schema's keys one level deeper.
fn response_format(mut format: Map<String, Value>) -> Result<ResponseFormat, ApiError> {
    let kind = format.remove("type");
    serde_json::from_value(json!({"type": kind, "json_schema": format}))
        .map_err(|error| ApiError::invalid(format!("Invalid request: text.format: {error}")))
}
