//! JSON schemas of what is read by hand.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Input, InputItem, TextPart, ToolChoice};
use crate::{MediaUrl, Role};

impl JsonSchema for Input {
    fn schema_name() -> Cow<'static, str> {
        "ResponsesInput".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<InputItem>();
        json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": item}]})
    }
}

impl JsonSchema for InputItem {
    fn schema_name() -> Cow<'static, str> {
        "InputItem".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let role = generator.subschema_for::<Role>();
        let texts = json_schema!({
            "anyOf": [{"type": "array", "items": generator.subschema_for::<TextPart>()}, {"type": "null"}],
        });
        let content = content(generator);
        json_schema!({
            "type": "object",
            "oneOf": [
                {
                    "properties": {"type": {"enum": ["message", null]}, "role": role, "content": content},
                    "required": ["role", "content"],
                },
                {
                    "properties": {"type": {"const": "reasoning"}, "content": texts, "summary": texts},
                    "required": ["type"],
                },
                {
                    "properties": {
                        "type": {"const": "function_call"},
                        "call_id": {"type": "string"},
                        "name": {"type": "string"},
                        "arguments": {"type": ["string", "null"]},
                    },
                    "required": ["type", "call_id", "name"],
                },
                {
                    "properties": {
                        "type": {"const": "function_call_output"},
                        "call_id": {"type": "string"},
                        "output": content,
                    },
                    "required": ["type", "call_id", "output"],
                },
            ],
        })
    }
}

/// Text, or parts with this API's names.
fn content(generator: &mut SchemaGenerator) -> Schema {
    let image_url = generator.subschema_for::<MediaUrl>();
    let part = json_schema!({
        "type": "object",
        "properties": {
            "type": {"enum": ["input_text", "output_text", "text", "refusal", "input_image"]},
            "text": {"type": ["string", "null"]},
            "refusal": {"type": ["string", "null"]},
            "image_url": {"anyOf": [image_url, {"type": "null"}]},
            "file_id": {"type": ["string", "null"]},
        },
        "required": ["type"],
    });
    json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": part}]})
}

impl JsonSchema for ToolChoice {
    fn schema_name() -> Cow<'static, str> {
        "ResponsesToolChoice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"enum": ["auto", "none", "required"]},
            {
                "type": "object",
                "properties": {"type": {"const": "function"}, "name": {"type": "string"}},
                "required": ["type", "name"],
            },
        ]})
    }
}
