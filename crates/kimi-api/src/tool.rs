//! Tools a request declares and how it wants them used.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::null_as_default;

/// A declared tool: the keys the server understands, and the whole declaration as it was sent, because the prompt
/// shows the model every key in its order.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Tool {
    /// What kind of tool it is.
    pub kind: ToolKind,
    /// The function.
    pub function: FunctionDefinition,
    /// The declaration as sent, keys in their order.
    pub raw: Value,
}

/// What kind of tool a declaration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    /// A function the client runs.
    Function,
    /// A function the service runs, such as `$web_search`.
    BuiltinFunction,
}

/// A function the model may call.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct FunctionDefinition {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    #[serde(default)]
    pub description: Option<String>,
    /// The JSON schema of its arguments, keys in their order; absent means no arguments.
    #[serde(default)]
    pub parameters: Option<Value>,
    /// Whether the arguments must follow the schema exactly.
    #[serde(default)]
    pub strict: Option<bool>,
}

/// The keys of a declaration that the server understands.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct WireTool {
    #[serde(rename = "type")]
    kind: ToolKind,
    function: FunctionDefinition,
}

impl TryFrom<Value> for Tool {
    type Error = serde_json::Error;

    fn try_from(raw: Value) -> Result<Self, serde_json::Error> {
        let WireTool { kind, function } = WireTool::deserialize(&raw)?;
        Ok(Self { kind, function, raw })
    }
}

impl Serialize for Tool {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

/// Whether and which tool the model must call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// No call.
    None,
    /// At least one call.
    Required,
    /// A call of this function.
    Function(String),
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ToolChoiceVisitor;
        impl<'de> Visitor<'de> for ToolChoiceVisitor {
            type Value = ToolChoice;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "\"auto\", \"none\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": …}}",
                )
            }
            fn visit_str<E: Error>(self, word: &str) -> Result<ToolChoice, E> {
                match word {
                    "auto" => Ok(ToolChoice::Auto),
                    "none" => Ok(ToolChoice::None),
                    "required" => Ok(ToolChoice::Required),
                    other => Err(E::unknown_variant(other, &["auto", "none", "required"])),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ToolChoice, A::Error> {
                #[derive(Deserialize)]
                struct Named {
                    name: String,
                }
                let mut name = None;
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "function" => name = Some(map.next_value::<Named>()?.name),
                        "type" => {
                            let kind = map.next_value::<String>()?;
                            if kind != "function" {
                                return Err(A::Error::unknown_variant(&kind, &["function"]));
                            }
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                name.map(ToolChoice::Function).ok_or_else(|| A::Error::missing_field("function"))
            }
        }
        deserializer.deserialize_any(ToolChoiceVisitor)
    }
}

/// The shape the answer must have.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct ResponseFormat {
    /// Which shape.
    #[serde(rename = "type")]
    pub kind: ResponseFormatKind,
    /// The schema of a `json_schema` format, not looked into here.
    #[serde(default, deserialize_with = "null_as_default")]
    pub json_schema: Value,
}

/// The kinds of [`ResponseFormat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormatKind {
    /// Free text.
    Text,
    /// One JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema,
}

/// `structured_outputs`: one of several ways to describe the answer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct StructuredOutputs {
    /// JSON that follows this schema, given as an object or as its text.
    pub json: Option<Value>,
    /// One JSON object.
    pub json_object: Option<bool>,
    /// A text that matches this regular expression as a whole.
    pub regex: Option<String>,
    /// One of these texts.
    pub choice: Option<Vec<String>>,
    /// A text of this grammar.
    pub grammar: Option<String>,
}
