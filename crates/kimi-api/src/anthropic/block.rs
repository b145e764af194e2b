//! Blocks of content in a request.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::null_as_default;

/// Content in a row of blocks; plain text is one block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blocks(pub Vec<InputBlock>);

/// A block of content.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub enum InputBlock {
    /// Text.
    Text(String),
    /// An image.
    Image(MediaSource),
    /// A call the model made.
    ToolUse {
        /// Names the call.
        id: String,
        /// The tool.
        name: String,
        /// Its input, keys in the order they were sent.
        input: Map<String, Value>,
    },
    /// What a call gave.
    ToolResult {
        /// The call it answers.
        tool_use_id: String,
        /// What the tool said; a tool may say nothing.
        content: Blocks,
        /// The tool failed.
        is_error: bool,
    },
    /// Thoughts of the model, echoed.
    Thinking(String),
    /// Thoughts of another service's model that nobody else can read.
    RedactedThinking,
    /// A kind of block this API does not know.
    Other {
        /// What its `type` said.
        kind: String,
    },
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MediaSource {
    /// Here, in base64.
    Base64 {
        /// For example `image/png`.
        media_type: String,
        /// The bytes.
        data: String,
    },
    /// Behind a URL.
    Url {
        /// `ms://ID` of an upload, a `data:` URL, or an `https://` URL of a host that the operator allows.
        url: String,
    },
    /// Among the uploaded files.
    File {
        /// The file's id.
        file_id: String,
    },
}

impl TryFrom<Value> for InputBlock {
    type Error = serde_json::Error;

    fn try_from(block: Value) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            kind: String,
        }
        let Kind { kind } = Kind::deserialize(&block)?;
        match kind.as_str() {
            "text" => text(block),
            "image" => image(block),
            "tool_use" => tool_use(block),
            "tool_result" => tool_result(block),
            "thinking" => thinking(block),
            "redacted_thinking" => Ok(Self::RedactedThinking),
            _ => Ok(Self::Other { kind }),
        }
    }
}

fn text(block: Value) -> Result<InputBlock, serde_json::Error> {
    #[derive(Deserialize)]
    struct Text {
        text: String,
    }
    Text::deserialize(block).map(|Text { text }| InputBlock::Text(text))
}

fn image(block: Value) -> Result<InputBlock, serde_json::Error> {
    #[derive(Deserialize)]
    struct Image {
        source: MediaSource,
    }
    Image::deserialize(block).map(|Image { source }| InputBlock::Image(source))
}

fn tool_use(block: Value) -> Result<InputBlock, serde_json::Error> {
    #[derive(Deserialize)]
    struct ToolUse {
        id: String,
        name: String,
        #[serde(default, deserialize_with = "null_as_default")]
        input: Map<String, Value>,
    }
    let ToolUse { id, name, input } = ToolUse::deserialize(block)?;
    Ok(InputBlock::ToolUse { id, name, input })
}

fn tool_result(block: Value) -> Result<InputBlock, serde_json::Error> {
    #[derive(Deserialize)]
    struct ToolResult {
        tool_use_id: String,
        #[serde(default, deserialize_with = "null_as_default")]
        content: Blocks,
        #[serde(default, deserialize_with = "null_as_default")]
        is_error: bool,
    }
    let ToolResult { tool_use_id, content, is_error } = ToolResult::deserialize(block)?;
    Ok(InputBlock::ToolResult { tool_use_id, content, is_error })
}

fn thinking(block: Value) -> Result<InputBlock, serde_json::Error> {
    #[derive(Deserialize)]
    struct Thinking {
        #[serde(default, deserialize_with = "null_as_default")]
        thinking: String,
    }
    Thinking::deserialize(block).map(|Thinking { thinking }| InputBlock::Thinking(thinking))
}

impl<'de> Deserialize<'de> for Blocks {
    /// Not `untagged`: a visitor keeps the path of a wrong block in the error text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BlocksVisitor;
        impl<'de> Visitor<'de> for BlocksVisitor {
            type Value = Blocks;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of content blocks")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Blocks, E> {
                self.visit_string(text.to_owned())
            }
            fn visit_string<E: Error>(self, text: String) -> Result<Blocks, E> {
                Ok(Blocks(vec![InputBlock::Text(text)]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, blocks: A) -> Result<Blocks, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(blocks)).map(Blocks)
            }
        }
        deserializer.deserialize_any(BlocksVisitor)
    }
}
