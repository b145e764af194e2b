//! From a job's shape to the guide that keeps the answer in it: formats and schemas are compiled here.

use std::sync::Arc;

use kimi_api::Tool;
use kimi_chat::Conversation;
use kimi_guide::{AnswerFormat, AnswerPlan, CallRule, CompileError, Grammar, GuidedAnswer, Guides, ToolRule};
use serde_json::{Value, json};

use crate::state::ReadyService;
use crate::validate::Shape;
use crate::{ApiError, blocking};

/// What of a conversation a guide must know.
pub(crate) struct Setting {
    start: kimi_chat::OutputStart,
    tools: Vec<Tool>,
    first_call: usize,
    one_call: bool,
}

impl Setting {
    /// Reads it off before the conversation becomes tokens.
    pub(crate) fn of(conversation: &Conversation, one_call: bool) -> Self {
        Self {
            start: conversation.output_start(),
            tools: conversation.tools.clone(),
            first_call: conversation.past_tool_calls(),
            one_call,
        }
    }
}

/// The guide of an answer, or `None` when nothing constrains it. Compiles off the threads that serve everybody else; what
/// cannot be compiled is a 400.
pub(crate) async fn prepare(
    shape: Shape,
    setting: Setting,
    service: &ReadyService,
    request_id: &str,
) -> Result<Option<GuidedAnswer>, ApiError> {
    if shape.format.is_none() && setting.tools.is_empty() && shape.thinking_budget.is_none() {
        return Ok(None);
    }
    let guides = Arc::clone(&service.guides);
    let compiling = move || compile(&shape, &setting, &guides).map(Some);
    blocking::run(request_id, "The format of the answer could not be prepared", compiling).await
}

fn compile(shape: &Shape, setting: &Setting, guides: &Guides) -> Result<GuidedAnswer, ApiError> {
    let content = match &shape.format {
        Some(format) => {
            Some(guides.compile(format).map_err(|error| refused("the format of the answer", &error))?)
        }
        None => None,
    };
    let callable = setting.tools.iter().filter(|tool| match &shape.only_tool {
        Some(name) => *name == tool.function.name,
        None => shape.calls != CallRule::Forbidden,
    });
    let tools = callable
        .map(|tool| Ok(ToolRule { name: tool.function.name.clone(), arguments: arguments(tool, guides)? }));
    let plan = AnswerPlan {
        start: setting.start,
        thinking_budget: shape.thinking_budget,
        content,
        calls: shape.calls,
        tools: tools.collect::<Result<_, ApiError>>()?,
        one_call: setting.one_call,
        first_call: setting.first_call,
    };
    guides.guide(plan).map_err(|error| refused("the format of the answer", &error))
}

/// The grammar of a tool's arguments. A schema that the grammar engine cannot take binds the arguments to nothing but
/// being an object, unless the client asked for `strict`.
fn arguments(tool: &Tool, guides: &Guides) -> Result<Arc<Grammar>, ApiError> {
    let function = &tool.function;
    let what = format!("the parameters of function {}", function.name);
    let strict = function.strict == Some(true);
    let format = match function.strict {
        Some(false) => AnswerFormat::JsonObject,
        _ => AnswerFormat::JsonSchema { schema: parameters(tool, &what)?, strict },
    };
    let compiled = match guides.compile(&format) {
        Err(CompileError::Refused(why)) if !strict => {
            tracing::debug!(%why, tool = function.name, "a tool's schema is not enforced");
            guides.compile(&AnswerFormat::JsonObject)
        }
        outcome => outcome,
    };
    let grammar = compiled.map_err(|error| refused(&what, &error))?;
    if !grammar.not_enforced().is_empty() {
        tracing::debug!(keywords = ?grammar.not_enforced(), tool = function.name, "not enforced");
    }
    Ok(grammar)
}

/// The schema of a tool's arguments: an object, with nothing in it when the tool declares no parameters. The grammar engine
/// holds an answer to the order of the schema's properties.
fn parameters(tool: &Tool, what: &str) -> Result<Value, ApiError> {
    let Some(Value::Object(declared)) = &tool.function.parameters else {
        return Ok(json!({"type": "object", "properties": {}, "additionalProperties": false}));
    };
    let mut schema = declared.clone();
    let is_object = match schema.get("type") {
        None => true,
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        Some(kind) => kind == "object",
    };
    if !is_object {
        return Err(ApiError::invalid(format!(
            "Invalid request: {what} must describe an object: type must be \"object\""
        )));
    }
    // Beside a reference the target says it; everywhere else arguments are an object even if the schema forgot it.
    if !schema.contains_key("$ref") {
        schema.insert("type".into(), "object".into());
    }
    Ok(kimi_chat::in_reading_order(&Value::Object(schema)))
}

fn refused(what: &str, error: &CompileError) -> ApiError {
    ApiError::invalid(format!("Invalid request: {what}: {error}"))
}
