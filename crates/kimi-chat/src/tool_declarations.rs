//! How tools are declared to the model: TypeScript-like text, or compact JSON when that cannot express a schema.
//!
//! Both follow the reference byte for byte, because the model was trained on them: all object keys are sorted first,
//! at every depth, and one schema that TypeScript cannot express turns the whole list into JSON.

mod schema;
mod typescript;

use kimi_api::Tool;
use serde_json::{Map, Value};

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

/// The same value with the keys of every object in order of their code points.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(fields) => {
            let mut entries: Vec<_> = fields.iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(
                entries.into_iter().map(|(key, field)| (key.clone(), sorted(field))).collect::<Map<_, _>>(),
            )
        }
        scalar => scalar.clone(),
    }
}
