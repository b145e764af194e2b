//! JSON schemas of what is read by hand.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Blocks, InputBlock, MediaSource};

impl JsonSchema for Blocks {
    fn schema_name() -> Cow<'static, str> {
        "Blocks".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let block = generator.subschema_for::<InputBlock>();
        json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": block}]})
    }
}

impl JsonSchema for InputBlock {
    fn schema_name() -> Cow<'static, str> {
        "InputBlock".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let source = generator.subschema_for::<MediaSource>();
        let content = generator.subschema_for::<Blocks>();
        json_schema!({
            "type": "object",
            "required": ["type"],
            "oneOf": [
                {"properties": {"type": {"const": "text"}, "text": {"type": "string"}}, "required": ["text"]},
                {"properties": {"type": {"const": "image"}, "source": source}, "required": ["source"]},
                {
                    "properties": {
                        "type": {"const": "tool_use"},
                        "id": {"type": "string"},
                        "name": {"type": "string"},
                        "input": {"type": ["object", "null"]},
                    },
                    "required": ["id", "name"],
                },
                {
                    "properties": {
                        "type": {"const": "tool_result"},
                        "tool_use_id": {"type": "string"},
                        "content": {"anyOf": [content, {"type": "null"}]},
                        "is_error": {"type": ["boolean", "null"]},
                    },
                    "required": ["tool_use_id"],
                },
                {"properties": {"type": {"const": "thinking"}, "thinking": {"type": ["string", "null"]}}},
                {"properties": {"type": {"const": "redacted_thinking"}}},
                {
                    "description": "A block of another service; in the assistant's messages it is left out.",
                    "properties": {"type": {
                        "type": "string",
                        "not": {"enum":
                            ["text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking"]},
                    }},
                },
            ],
        })
    }
}
