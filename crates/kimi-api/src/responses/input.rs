//! Items of the conversation a request carries.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{Content, MediaUrl, Part, Role, null_as_default};

/// The conversation: plain text is one message of the user.
#[derive(Clone, Debug, PartialEq)]
pub struct Input(pub Vec<InputItem>);

/// One item.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub enum InputItem {
    /// A message; items without a `type` are messages, too.
    Message {
        /// Who speaks.
        role: Role,
        /// What is said.
        content: Content,
    },
    /// Thoughts of the model, echoed.
    Reasoning {
        /// In their own words.
        content: Vec<TextPart>,
        /// In short.
        summary: Vec<TextPart>,
    },
    /// A call the model made.
    FunctionCall {
        /// Names the call.
        call_id: String,
        /// The function.
        name: String,
        /// Its arguments as JSON text.
        arguments: String,
    },
    /// What a call gave.
    FunctionCallOutput {
        /// The call it answers.
        call_id: String,
        /// What the function said.
        output: Content,
    },
    /// A kind of item this API does not know.
    Other {
        /// What its `type` said.
        kind: String,
    },
}

/// A stretch of text, whatever its `type`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct TextPart {
    /// The text.
    pub text: String,
}

impl TryFrom<Value> for InputItem {
    type Error = serde_json::Error;

    fn try_from(item: Value) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            kind: Option<String>,
        }
        let Kind { kind } = Kind::deserialize(&item)?;
        match kind.as_deref() {
            None | Some("message") => message(item),
            Some("reasoning") => reasoning(item),
            Some("function_call") => function_call(item),
            Some("function_call_output") => function_call_output(item),
            Some(kind) => Ok(Self::Other { kind: kind.to_owned() }),
        }
    }
}

fn message(item: Value) -> Result<InputItem, serde_json::Error> {
    #[derive(Deserialize)]
    struct Message {
        role: Role,
        content: WireContent,
    }
    let Message { role, content } = Message::deserialize(item)?;
    Ok(InputItem::Message { role, content: content.0 })
}

fn reasoning(item: Value) -> Result<InputItem, serde_json::Error> {
    #[derive(Deserialize)]
    struct Reasoning {
        #[serde(default, deserialize_with = "null_as_default")]
        content: Vec<TextPart>,
        #[serde(default, deserialize_with = "null_as_default")]
        summary: Vec<TextPart>,
    }
    let Reasoning { content, summary } = Reasoning::deserialize(item)?;
    Ok(InputItem::Reasoning { content, summary })
}

fn function_call(item: Value) -> Result<InputItem, serde_json::Error> {
    #[derive(Deserialize)]
    struct FunctionCall {
        call_id: String,
        name: String,
        #[serde(default, deserialize_with = "null_as_default")]
        arguments: String,
    }
    let FunctionCall { call_id, name, arguments } = FunctionCall::deserialize(item)?;
    Ok(InputItem::FunctionCall { call_id, name, arguments })
}

fn function_call_output(item: Value) -> Result<InputItem, serde_json::Error> {
    #[derive(Deserialize)]
    struct FunctionCallOutput {
        call_id: String,
        output: WireContent,
    }
    let FunctionCallOutput { call_id, output } = FunctionCallOutput::deserialize(item)?;
    Ok(InputItem::FunctionCallOutput { call_id, output: output.0 })
}

/// Content whose parts have this API's names, read as content of the chat API.
struct WireContent(Content);

/// A part as it lies on the wire.
#[derive(Deserialize)]
struct WirePart {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    /// What the model said when it declined.
    refusal: Option<String>,
    image_url: Option<MediaUrl>,
    file_id: Option<String>,
}

impl From<WirePart> for Part {
    fn from(wire: WirePart) -> Self {
        let WirePart { kind, text, refusal, image_url, file_id } = wire;
        match (kind.as_str(), text, refusal) {
            ("input_text" | "output_text" | "text", Some(text), _) | ("refusal", _, Some(text)) => {
                Self::Text { text }
            }
            ("input_image", _, _) => {
                let uploaded = file_id.map(|id| MediaUrl { url: format!("ms://{id}") });
                match image_url.or(uploaded) {
                    Some(image_url) => Self::ImageUrl { image_url },
                    None => Self::Other { kind },
                }
            }
            _ => Self::Other { kind },
        }
    }
}

impl<'de> Deserialize<'de> for WireContent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_items(deserializer, "a string or an array of content parts", Content::Text, |parts| {
            Content::Parts(parts.into_iter().map(|part: WirePart| part.into()).collect())
        })
        .map(Self)
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let said = |text| vec![InputItem::Message { role: Role::User, content: Content::Text(text) }];
        text_or_items(deserializer, "a string or an array of items", said, |items| items).map(Self)
    }
}

/// Reads a string or an array. Not `untagged`, so that errors keep the path of a wrong item.
fn text_or_items<'de, D, T, R>(
    deserializer: D,
    expected: &'static str,
    from_text: impl FnOnce(String) -> R,
    from_items: impl FnOnce(Vec<T>) -> R,
) -> Result<R, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct TextOrItems<T> {
        expected: &'static str,
        items: std::marker::PhantomData<T>,
    }
    impl<'de, T: Deserialize<'de>> Visitor<'de> for TextOrItems<T> {
        type Value = Result<String, Vec<T>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expected)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Ok(text.to_owned()))
        }
        fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
            Ok(Ok(text))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
            Deserialize::deserialize(SeqAccessDeserializer::new(items)).map(Err)
        }
    }
    let visitor = TextOrItems { expected, items: std::marker::PhantomData };
    Ok(match deserializer.deserialize_any(visitor)? {
        Ok(text) => from_text(text),
        Err(items) => from_items(items),
    })
}
