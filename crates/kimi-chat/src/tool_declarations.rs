//! How tools are declared to the model: TypeScript-like text, or compact JSON when that cannot express a schema.
//!
//! Both follow the reference byte for byte, because the model was trained on them: all object keys are sorted first,
//! at every depth, and one schema that TypeScript cannot express turns the whole list into JSON.

mod schema;
mod typescript;

use kimi_api::Tool;
use serde_json::Value;

use crate::python_text::{self, Separators};

/// The body of the `tool_declare` message for these tools, at least one.
pub(crate) fn declare(tools: &[Tool]) -> String {
    let tools: Vec<Value> = tools.iter().map(|tool| sorted(&tool.raw)).collect();
    match typescript::encode(&tools) {
        Ok(declaration) if !declaration.is_empty() => declaration,
        // Nothing to say in TypeScript (only built-in tools) is said in JSON too.
        _ => python_text::json(&Value::Array(tools), Separators::COMPACT),
    }
}

/// The same schema with its properties in the order in which the model reads them: required ones first, each part sorted.
/// Who holds a model to an order of arguments must choose this one; another makes it write what it would not.
pub fn in_reading_order(schema: &Value) -> Value {
    let mut schema = sorted(schema);
    required_first(&mut schema);
    schema
}

fn required_first(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(required_first),
        Value::Object(fields) => {
            let required = fields.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
            if let Some(Value::Object(properties)) = fields.get_mut("properties") {
                let (first, last): (Vec<_>, Vec<_>) = std::mem::take(properties)
                    .into_iter()
                    .partition(|(name, _)| required.iter().any(|required| required == name));
                properties.extend(first.into_iter().chain(last));
            }
            fields.values_mut().for_each(required_first);
        }
        _ => {}
    }
}

/// The same value with the keys of every object in order of their code points.
fn sorted(value: &Value) -> Value {
    let mut value = value.clone();
    value.sort_all_objects();
    value
}
