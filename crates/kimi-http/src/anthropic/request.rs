//! A request of the Messages API as a chat request.

use kimi_api::anthropic::{
    Blocks, InputBlock, InputMessage, MediaSource, MessagesRequest, OutputFormat, Speaker, ToolChoiceKind,
    ToolParam,
};
use kimi_api::{
    Arguments, ChatCompletionRequest, ChatMessage, Content, FunctionCall, MediaUrl, Part, ResponseFormat,
    Role, StopSequences, Thinking, ThinkingKind, Tool, ToolCall, ToolCallKind, ToolChoice,
};
use serde_json::{Map, Value, json};

use crate::ApiError;

/// A chat request, and what of the original has no counterpart.
pub(crate) struct Translated {
    pub(crate) request: ChatCompletionRequest,
    pub(crate) ignored: Vec<&'static str>,
}

/// What a tool that said nothing is made to say: the chat format has no empty results.
const NO_OUTPUT: &str = "(no output)";

/// Translates a request. What it asks for is judged where chat requests are.
pub(crate) fn to_chat(request: MessagesRequest) -> Result<Translated, ApiError> {
    let mut ignored = Vec::new();
    let tools = tools(request.tools, &mut ignored)?;
    let mut messages = Vec::with_capacity(request.messages.len() + 1);
    if let Some(system) = request.system {
        messages.push(message(Role::System, parts(system)));
    }
    // A last message of the assistant is the beginning of the answer.
    let continues = request.messages.last().is_some_and(|last| last.role == Speaker::Assistant);
    for InputMessage { role, content } in request.messages {
        match role {
            Speaker::System => messages.push(message(Role::System, parts(content))),
            Speaker::User => user(content, &mut messages),
            Speaker::Assistant => messages.push(assistant(content, &mut ignored)),
        }
    }
    if let Some(last) = messages.last_mut().filter(|_| continues) {
        last.partial = true;
    }
    let choice = request.tool_choice;
    let format = request.output_config.and_then(|config| config.format).or(request.output_format);
    ignored.sort_unstable();
    ignored.dedup();
    let request = ChatCompletionRequest {
        model: request.model,
        messages,
        max_tokens: request.max_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        stop: (!request.stop_sequences.is_empty()).then_some(StopSequences(request.stop_sequences)),
        stream: request.stream,
        tools,
        parallel_tool_calls: choice
            .as_ref()
            .and_then(|choice| choice.disable_parallel_tool_use)
            .map(|one| !one),
        tool_choice: choice.map(tool_choice).transpose()?,
        thinking: request.thinking.map(|thinking| thinking_switch(thinking.kind)),
        thinking_budget: request.thinking.and_then(|thinking| thinking.budget_tokens),
        response_format: format.map(response_format).transpose()?,
        ..ChatCompletionRequest::default()
    };
    Ok(Translated { request, ignored })
}

fn message(role: Role, parts: Vec<Part>) -> ChatMessage {
    ChatMessage { content: Some(Content::Parts(parts)), ..ChatMessage::text(role, "") }
}

fn parts(blocks: Blocks) -> Vec<Part> {
    blocks.0.into_iter().map(part).collect()
}

/// Text and images. Anything else has no place where this is used, and the chat route says so by the block's name.
fn part(block: InputBlock) -> Part {
    match block {
        InputBlock::Text(text) => Part::Text { text },
        InputBlock::Image(source) => Part::ImageUrl { image_url: MediaUrl { url: url(source) } },
        InputBlock::Other { kind } => Part::Other { kind },
        InputBlock::ToolUse { .. } => Part::Other { kind: "tool_use".into() },
        InputBlock::ToolResult { .. } => Part::Other { kind: "tool_result".into() },
        InputBlock::Thinking(_) => Part::Other { kind: "thinking".into() },
        InputBlock::RedactedThinking => Part::Other { kind: "redacted_thinking".into() },
    }
}

fn url(source: MediaSource) -> String {
    match source {
        MediaSource::Base64 { media_type, data } => format!("data:{media_type};base64,{data}"),
        MediaSource::Url { url } => url,
        MediaSource::File { file_id } => format!("ms://{file_id}"),
    }
}

/// What the person says, and before, between or after it what the tools say: each result is a message of its own.
fn user(blocks: Blocks, messages: &mut Vec<ChatMessage>) {
    let mut said = Vec::new();
    let mut silent = true;
    for block in blocks.0 {
        if let InputBlock::ToolResult { tool_use_id, content, is_error } = block {
            if !said.is_empty() {
                messages.push(message(Role::User, std::mem::take(&mut said)));
            }
            messages.push(tool_result(tool_use_id, content, is_error));
            silent = false;
        } else {
            said.push(part(block));
        }
    }
    if silent || !said.is_empty() {
        messages.push(message(Role::User, said));
    }
}

fn tool_result(id: String, content: Blocks, is_error: bool) -> ChatMessage {
    let mut said = Content::Parts(parts(content));
    if said.is_empty() {
        said = Content::Parts(vec![Part::Text { text: NO_OUTPUT.into() }]);
    }
    if let (true, Content::Parts(parts)) = (is_error, &mut said) {
        parts.insert(0, Part::Text { text: "Error: ".into() });
    }
    ChatMessage { content: Some(said), tool_call_id: Some(id), ..ChatMessage::text(Role::Tool, "") }
}

/// The chat format knows one order: thoughts, text, calls.
fn assistant(blocks: Blocks, ignored: &mut Vec<&'static str>) -> ChatMessage {
    let (mut said, mut tool_calls, mut thoughts) = (Vec::new(), Vec::new(), None::<String>);
    for block in blocks.0 {
        match block {
            InputBlock::Thinking(text) => thoughts.get_or_insert_default().push_str(&text),
            // Nobody here can read those.
            InputBlock::RedactedThinking => {}
            InputBlock::ToolUse { id, name, input } => tool_calls.push(tool_call(id, name, input)),
            // Work of another service's own tools, echoed from a conversation that began there.
            InputBlock::Other { .. } => ignored.push("blocks of other services"),
            block => said.push(part(block)),
        }
    }
    ChatMessage { reasoning_content: thoughts, tool_calls, ..message(Role::Assistant, said) }
}

fn tool_call(id: String, name: String, input: Map<String, Value>) -> ToolCall {
    let function = FunctionCall { name, arguments: Arguments::Object(input) };
    ToolCall { id, kind: ToolCallKind::Function, function }
}

fn tools(params: Vec<ToolParam>, ignored: &mut Vec<&'static str>) -> Result<Vec<Tool>, ApiError> {
    let mut tools = Vec::with_capacity(params.len());
    for param in params {
        if param.kind.as_deref().is_some_and(|kind| kind != "custom") {
            ignored.push("tools of other services");
            continue;
        }
        let Some(name) = param.name else {
            return Err(ApiError::invalid("Invalid request: each of the tools must have a name"));
        };
        tools.push(tool(name, param.description, param.input_schema, param.strict)?);
    }
    Ok(tools)
}

/// A function's declaration in the form the chat API has for it; absent keys stay absent.
pub(crate) fn tool(
    name: String,
    description: Option<String>,
    schema: Option<Value>,
    strict: Option<bool>,
) -> Result<Tool, ApiError> {
    let mut function = Map::new();
    function.insert("name".into(), name.into());
    let rest = [
        ("description", description.map(Value::from)),
        ("parameters", schema),
        ("strict", strict.map(Value::from)),
    ];
    for (key, value) in rest {
        if let Some(value) = value {
            function.insert(key.into(), value);
        }
    }
    Tool::try_from(json!({"type": "function", "function": function}))
        .map_err(|error| ApiError::invalid(format!("Invalid request: tools: {error}")))
}

fn tool_choice(choice: kimi_api::anthropic::ToolChoice) -> Result<ToolChoice, ApiError> {
    Ok(match choice.kind {
        ToolChoiceKind::Auto => ToolChoice::Auto,
        ToolChoiceKind::Any => ToolChoice::Required,
        ToolChoiceKind::None => ToolChoice::None,
        ToolChoiceKind::Tool => ToolChoice::Function(choice.name.ok_or_else(|| {
            ApiError::invalid("Invalid request: tool_choice of type 'tool' must have the tool's name")
        })?),
    })
}

/// `adaptive` leaves it to the model, which for this model means to think. `display` is not looked at: thoughts that a
/// client does not get cannot be echoed in a tool loop, and without them the model loses its thread.
fn thinking_switch(kind: ThinkingKind) -> Thinking {
    let kind = match kind {
        ThinkingKind::Adaptive | ThinkingKind::Enabled => ThinkingKind::Enabled,
        ThinkingKind::Disabled => ThinkingKind::Disabled,
    };
    Thinking { kind, keep: None, budget_tokens: None, unknown: Map::new() }
}

fn response_format(OutputFormat { kind, schema }: OutputFormat) -> Result<ResponseFormat, ApiError> {
    let schema = json!({"name": "output", "schema": schema, "strict": true});
    serde_json::from_value(json!({"type": kind, "json_schema": schema}))
        .map_err(|error| ApiError::invalid(format!("Invalid request: output_config.format: {error}")))
}
