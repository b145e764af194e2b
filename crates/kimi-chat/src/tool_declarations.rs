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

/// The same value with the keys of every object in order of their code points.
fn sorted(value: &Value) -> Value {
    let mut value = value.clone();
    value.sort_all_objects();
    value
}
