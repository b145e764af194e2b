//! Messages of a conversation as clients send them: roles, content parts, tool calls, echoed reasoning.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{Tool, null_as_default};

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions; `developer` is the newer spelling some clients use.
    #[serde(alias = "developer")]
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        })
    }
}

/// One message of a request. `null` means the same as an absent key; unknown keys are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said; an assistant message with tool calls may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// Replaces the role's name in the message header of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Calls an assistant message made; empty when it made none.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// On a tool message: the call it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The thoughts behind an assistant message, echoed by the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Another spelling of `reasoning_content`; see [`ChatMessage::thoughts`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// On the last message, an assistant's: the reply continues this text.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Tools declared in the middle of a conversation; they join the request's own.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
}

impl ChatMessage {
    /// A message of `role` that says `text` and nothing else.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: Some(Content::Text(text.into())),
            name: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            reasoning_content: None,
            reasoning: None,
            partial: false,
            tools: Vec::new(),
        }
    }

    /// The echoed reasoning under either of its names, never both: `reasoning` first, as the chat template has it.
    pub fn thoughts(&self) -> Option<&str> {
        self.reasoning.as_deref().or(self.reasoning_content.as_deref())
    }
}

/// A message's content: plain text, or parts in order.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Text and media parts.
    Parts(Vec<Part>),
}

impl Content {
    /// Whether there is neither text nor media in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Parts(parts) => {
                parts.iter().all(|part| matches!(part, Part::Text { text } if text.is_empty()))
            }
        }
    }
}

/// One part of a message's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "WirePart", into = "WirePart")]
pub enum Part {
    /// Text. Several text parts join without a separator.
    Text {
        /// The text.
        text: String,
    },
    /// An image: PNG, JPEG, WebP, GIF (its first picture) or BMP.
    ImageUrl {
        /// A `data:` URL, `ms://ID` of an upload, or an `https://` URL of a host that the operator allows.
        image_url: MediaUrl,
    },
    /// A video: H.264 in MP4 or MOV, or an animated GIF or WebP.
    VideoUrl {
        /// A `data:` URL, `ms://ID` of an upload, or an `https://` URL of a host that the operator allows.
        video_url: MediaUrl,
    },
    /// A kind of part this API does not know, or a known kind without its own key; the request is refused with the
    /// kind's name.
    Other {
        /// What its `type` said; empty when it had none.
        kind: String,
    },
}

/// Where an image or a video is: `"…"` and `{"url": "…"}` mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaUrl {
    /// The URL as sent.
    pub url: String,
}

/// A part as it lies on the wire, so that the kind and its payload may come in any order and errors keep their path.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct WirePart {
    /// `text`, `image_url` or `video_url`; the key of this name has the rest.
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    kind: String,
    /// Text. Several text parts join without a separator.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// An image: PNG, JPEG, WebP, GIF (its first picture) or BMP, of whatever type the URL says it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_url: Option<MediaUrl>,
    /// A video: H.264 in MP4 or MOV, or an animated GIF or WebP.
    #[serde(skip_serializing_if = "Option::is_none")]
    video_url: Option<MediaUrl>,
}

impl From<WirePart> for Part {
    fn from(wire: WirePart) -> Self {
        let WirePart { kind, text, image_url, video_url } = wire;
        match (kind.as_str(), text, image_url, video_url) {
            ("text", Some(text), _, _) => Self::Text { text },
            ("image_url", _, Some(image_url), _) => Self::ImageUrl { image_url },
            ("video_url", _, _, Some(video_url)) => Self::VideoUrl { video_url },
            _ => Self::Other { kind },
        }
    }
}

impl From<Part> for WirePart {
    fn from(part: Part) -> Self {
        match part {
            Part::Text { text } => Self { kind: "text".into(), text: Some(text), ..Self::default() },
            Part::ImageUrl { image_url } => {
                Self { kind: "image_url".into(), image_url: Some(image_url), ..Self::default() }
            }
            Part::VideoUrl { video_url } => {
                Self { kind: "video_url".into(), video_url: Some(video_url), ..Self::default() }
            }
            Part::Other { kind } => Self { kind, ..Self::default() },
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    /// Not `untagged`: a visitor keeps the path of a wrong part in the error text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContentVisitor;
        impl<'de> Visitor<'de> for ContentVisitor {
            type Value = Content;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of content parts")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }
            fn visit_string<E: Error>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<Content, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(parts)).map(Content::Parts)
            }
        }
        deserializer.deserialize_any(ContentVisitor)
    }
}

impl Serialize for MediaUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::json!({ "url": self.url }).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MediaUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MediaUrlVisitor;
        impl<'de> Visitor<'de> for MediaUrlVisitor {
            type Value = MediaUrl;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL or an object with the key `url`")
            }
            fn visit_str<E: Error>(self, url: &str) -> Result<MediaUrl, E> {
                Ok(MediaUrl { url: url.to_owned() })
            }
            fn visit_string<E: Error>(self, url: String) -> Result<MediaUrl, E> {
                Ok(MediaUrl { url })
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<MediaUrl, A::Error> {
                let mut url = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "url" {
                        url = Some(map.next_value::<String>()?);
                    } else {
                        map.next_value::<serde::de::IgnoredAny>()?;
                    }
                }
                url.map(|url| MediaUrl { url }).ok_or_else(|| A::Error::missing_field("url"))
            }
        }
        deserializer.deserialize_any(MediaUrlVisitor)
    }
}

/// A call the model made, in history and in whole answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCall {
    /// Names the call so that a tool message can answer it. Empty when the client sent none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub id: String,
    /// Always `function`.
    #[serde(default, rename = "type", deserialize_with = "null_as_default")]
    pub kind: ToolCallKind,
    /// What is called.
    pub function: FunctionCall,
}

/// The kind of a tool call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolCallKind {
    /// A function of the client.
    #[default]
    Function,
    /// A function of the service, echoed from another server's history.
    BuiltinFunction,
}

/// The function of a call and its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// Its arguments.
    #[serde(default, deserialize_with = "null_as_default")]
    pub arguments: Arguments,
}

/// A call's arguments: JSON text as the API says, or the object itself as some clients send it. The prompt keeps text
/// as it is and prints an object the way the chat template's `tojson` does.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Arguments {
    /// JSON text, kept byte for byte.
    Text(String),
    /// An object, its keys in the order they were sent.
    Object(Map<String, Value>),
}

impl Default for Arguments {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::Text(text)),
            Value::Object(object) => Ok(Self::Object(object)),
            _ => Err(D::Error::custom("expected arguments as a string of JSON or as an object")),
        }
    }
}
