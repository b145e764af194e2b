#![doc = include_str!("../README.md")]

mod message;
mod tool;

use serde::{Deserialize, Deserializer};

pub use message::{
    Arguments, ChatMessage, Content, FunctionCall, MediaUrl, Part, Role, ToolCall, ToolCallKind,
};
pub use tool::{FunctionDefinition, ResponseFormat, ResponseFormatKind, Tool, ToolChoice, ToolKind};

/// Reads `null` as the type's default, since clients send `null` for "not set".
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
