//! The shape of the content: `response_format` and `structured_outputs`.

use kimi_api::{ChatCompletionRequest, ResponseFormat, ResponseFormatKind, StructuredOutputs};
use kimi_guide::AnswerFormat;
use serde_json::Value;

use super::Notices;
use crate::{ApiError, Policy};

/// The format the content must have. Whether it can be compiled is found out later, off this thread.
pub(super) fn decide(
    request: &ChatCompletionRequest,
    policy: Policy,
    notices: &mut Notices,
) -> Result<Option<AnswerFormat>, ApiError> {
    let asked = request.response_format.as_ref().map_or(Ok(None), response_format)?;
    let structured = match &request.structured_outputs {
        Some(_) if !policy.extensions => {
            notices.ignored("structured_outputs");
            None
        }
        Some(structured) => Some(structured_outputs(structured)?),
        None => None,
    };
    let (name, format) = match (asked, structured) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "Invalid request: response_format and structured_outputs both describe the answer; send one of them",
            ));
        }
        (Some(format), None) => ("response_format", format),
        (None, Some(format)) => ("structured_outputs", format),
        (None, None) => return Ok(None),
    };
    if request.messages.last().is_some_and(|message| message.partial) {
        return Err(ApiError::invalid(format!(
            "Invalid request: {name} cannot be used together with partial: the answer would begin in the middle of its format"
        )));
    }
    Ok(Some(format))
}

fn response_format(format: &ResponseFormat) -> Result<Option<AnswerFormat>, ApiError> {
    match format.kind {
        ResponseFormatKind::Text => Ok(None),
        ResponseFormatKind::JsonObject => Ok(Some(AnswerFormat::JsonObject)),
        ResponseFormatKind::JsonSchema => json_schema(&format.json_schema).map(Some),
    }
}

/// `{"name", "schema", "strict"}`, where `strict` is true unless it is false: only a client that wrote it wants an error
/// for what cannot be enforced.
fn json_schema(described: &Value) -> Result<AnswerFormat, ApiError> {
    let must =
        |what: &str| Err(ApiError::invalid(format!("Invalid request: response_format.json_schema{what}")));
    let Some(described) = described.as_object() else {
        return must(" is missing; it must be an object with name and schema");
    };
    if described.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
        return must(".name is missing; it must be a string");
    }
    let strict = match described.get("strict") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(strict)) => Some(*strict),
        Some(other) => return must(&format!(".strict must be true or false, not {other}")),
    };
    match described.get("schema") {
        Some(schema) if schema.is_object() => Ok(match strict {
            Some(false) => AnswerFormat::JsonObject,
            _ => AnswerFormat::JsonSchema { schema: schema.clone(), strict: strict == Some(true) },
        }),
        None | Some(Value::Null) => must(".schema is missing; it must be a JSON schema, which is an object"),
        Some(_) => must(".schema must be a JSON schema, which is an object"),
    }
}

fn structured_outputs(asked: &StructuredOutputs) -> Result<AnswerFormat, ApiError> {
    let json_object = asked.json_object.filter(|wanted| *wanted);
    let formats = [
        asked.json.as_ref().map(schema_of).transpose()?,
        json_object.map(|_| AnswerFormat::JsonObject),
        asked.regex.clone().map(AnswerFormat::Regex),
        asked.choice.clone().map(AnswerFormat::Choice),
        asked.grammar.clone().map(AnswerFormat::Grammar),
    ];
    let mut formats = formats.into_iter().flatten();
    match (formats.next(), formats.next()) {
        (Some(format), None) => Ok(format),
        _ => Err(ApiError::invalid(
            "Invalid request: structured_outputs must have exactly one of json, json_object, regex, choice and grammar",
        )),
    }
}

/// A schema as an object or as its text.
fn schema_of(json: &Value) -> Result<AnswerFormat, ApiError> {
    let parsed = match json {
        Value::String(text) => serde_json::from_str(text).ok(),
        other => Some(other.clone()),
    };
    let schema = parsed.filter(Value::is_object).ok_or_else(|| {
        ApiError::invalid(
            "Invalid request: structured_outputs.json must be a JSON schema, which is an object",
        )
    })?;
    Ok(AnswerFormat::JsonSchema { schema, strict: false })
}
