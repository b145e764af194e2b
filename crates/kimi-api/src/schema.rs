//! JSON schemas of the types that are read by hand, for the description of the API. All others derive theirs.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::tool::WireTool;
use crate::{MediaUrl, Prompts, Role, StopSequences, Tool, ToolChoice};

impl JsonSchema for Role {
    fn schema_name() -> Cow<'static, str> {
        "Role".into()
    }

    /// A derived schema would leave out the other name of `system`.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": ["system", "developer", "user", "assistant", "tool"]})
    }
}

impl JsonSchema for StopSequences {
    fn schema_name() -> Cow<'static, str> {
        "StopSequences".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
    }
}

impl JsonSchema for MediaUrl {
    fn schema_name() -> Cow<'static, str> {
        "MediaUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let url = json_schema!({
            "type": "string",
            "description": "`data:image/png;base64,…`, or `ms://ID` of an uploaded file.",
            "pattern": "^([Dd][Aa][Tt][Aa]:|ms://)",
        });
        let object = json_schema!({"type": "object", "properties": {"url": url}, "required": ["url"]});
        json_schema!({"anyOf": [url, object]})
    }
}

impl JsonSchema for Tool {
    fn schema_name() -> Cow<'static, str> {
        "Tool".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        WireTool::json_schema(generator)
    }
}

impl JsonSchema for ToolChoice {
    fn schema_name() -> Cow<'static, str> {
        "ToolChoice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"enum": ["auto", "none", "required"]},
            {
                "type": "object",
                "properties": {
                    "type": {"const": "function"},
                    "function": {
                        "type": "object",
                        "properties": {"name": {"type": "string"}},
                        "required": ["name"],
                    },
                },
                "required": ["function"],
            },
        ]})
    }
}

impl JsonSchema for Prompts {
    fn schema_name() -> Cow<'static, str> {
        "Prompts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let ids =
            json_schema!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": u32::MAX}});
        json_schema!({"anyOf": [
            {"type": "string"},
            ids,
            {"type": "array", "items": {"anyOf": [{"type": "string"}, ids]}},
        ]})
    }
}
