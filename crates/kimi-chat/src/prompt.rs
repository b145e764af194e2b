//! From a conversation to token ids, as pieces: markers are ids from the start, text is encoded with special tokens
//! off. So the prompt is what the checkpoint's chat template renders, and no text can forge a marker.

use std::borrow::Cow;
use std::sync::Arc;

use kimi_api::{Arguments, ChatMessage, Content, Part, Role};
use kimi_tokens::{EncodedPrompt, Medium, PromptMedium, TokenId};
use serde_json::Value;

use crate::conversation::has_content;
use crate::python_text::{self, Separators};
use crate::{
    Clip, Conversation, Markers, MediaMarkers, PreparedMedia, Vocabulary, tool_call_ids, tool_declarations,
};

/// Why a conversation has no prompt. Every text can be shown to the client; all are the request's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// There is no medium for the part, or no place for it in the vocabulary.
    #[error("message {index} has a part of type {kind}, but only text is taken here: remove the part")]
    MediaUnsupported {
        /// Of the message, from 0.
        index: usize,
        /// The part's type, as sent.
        kind: &'static str,
    },
    /// A part nobody knows.
    #[error(
        "message {index} has a content part of the unknown type `{kind}`; expected text, image_url or video_url"
    )]
    UnknownPart {
        /// Of the message, from 0.
        index: usize,
        /// The part's type, as sent.
        kind: String,
    },
    /// A tool message answers no call.
    #[error("tool_call_id {id} not found")]
    ToolCallNotFound {
        /// The id, as sent.
        id: String,
    },
    /// A tool message does not say which call it answers.
    #[error("tool_call_id is missing in the tool message at index {index}")]
    MissingToolCallId {
        /// Of the message, from 0.
        index: usize,
    },
    /// Only the last message can be continued, and only the assistant's.
    #[error("message {index} has partial: true; only the last message, with role assistant, can be partial")]
    PartialNotLast {
        /// Of the message, from 0.
        index: usize,
    },
    /// A call cannot be continued.
    #[error(
        "message {index} has partial: true and tool_calls; a partial message continues text: remove one of them"
    )]
    PartialWithToolCalls {
        /// Of the message, from 0.
        index: usize,
    },
}

/// A stretch of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// A special token.
    Marker(TokenId),
    /// Text, encoded with special tokens off together with the text next to it.
    Text(Cow<'a, str>),
    /// An image of the message at this index.
    Image(usize),
    /// A video of the message at this index.
    Video(usize),
}

/// Hop 3 of 9. The prompt of a conversation; `media` are its [`Conversation::media`] in their order, prepared.
///
/// The ids are those of the checkpoint's rendered chat template, if no text in it spells a special token; where one
/// does, it stays text here. Runs of text between markers are encoded as one, as the reference does. A medium takes as many
/// placeholders as the vision tower gives vectors for it.
pub fn encode(
    conversation: &Conversation,
    media: &[PreparedMedia],
    vocabulary: &Vocabulary,
    markers: &Markers,
) -> Result<EncodedPrompt, PromptError> {
    let mut encoder = Encoder { vocabulary, prompt: EncodedPrompt::default(), run: String::new() };
    let mut media = media.iter();
    let unsupported = |index, kind| PromptError::MediaUnsupported { index, kind };
    for piece in pieces(conversation, markers)? {
        match piece {
            Piece::Text(text) => encoder.text(&text),
            Piece::Marker(id) => encoder.marker(id),
            Piece::Image(index) => {
                let (Some(PreparedMedia::Image(medium)), Some(markers)) = (media.next(), markers.media)
                else {
                    return Err(unsupported(index, "image_url"));
                };
                encoder.medium("image", medium, markers);
            }
            Piece::Video(index) => {
                let (Some(PreparedMedia::Video(clips)), Some(markers)) = (media.next(), markers.media) else {
                    return Err(unsupported(index, "video_url"));
                };
                encoder.video(clips, markers);
            }
        }
    }
    Ok(encoder.finish())
}

/// Appends pieces to a prompt.
struct Encoder<'a> {
    vocabulary: &'a Vocabulary,
    prompt: EncodedPrompt,
    /// Text that was not encoded yet, since more may follow.
    run: String,
}

impl Encoder<'_> {
    fn text(&mut self, text: &str) {
        self.run.push_str(text);
    }

    fn marker(&mut self, id: TokenId) {
        self.prompt.tokens.extend(self.vocabulary.encode_text(&self.run));
        self.run.clear();
        self.prompt.tokens.push(id);
    }

    fn medium(&mut self, kind: &str, medium: &Arc<Medium>, markers: MediaMarkers) {
        self.marker(markers.begin);
        self.text(kind);
        self.marker(markers.content);
        let start = self.prompt.tokens.len();
        let positions = start..start + medium.grid.tokens();
        self.prompt.tokens.resize(positions.end, markers.pad);
        self.prompt.media.push(PromptMedium { positions, medium: Arc::clone(medium) });
        self.marker(markers.end);
    }

    fn video(&mut self, clips: &[Clip], markers: MediaMarkers) {
        for clip in clips {
            self.text(&timestamp(clip.start));
            self.medium("video", &clip.medium, markers);
        }
    }

    fn finish(mut self) -> EncodedPrompt {
        self.prompt.tokens.extend(self.vocabulary.encode_text(&self.run));
        self.prompt
    }
}

/// `hh:mm:ss.fff`, cut off to milliseconds, as a clock shows it: after a day it begins again.
fn timestamp(seconds: f64) -> String {
    let whole = seconds as u64;
    let (hours, minutes) = (whole / 3600 % 24, whole / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", whole % 60, (seconds.fract() * 1000.0) as u64)
}

/// The same prompt as text, markers by name and media as the template's placeholders: for people and for tests.
pub fn render(
    conversation: &Conversation,
    vocabulary: &Vocabulary,
    markers: &Markers,
) -> Result<String, PromptError> {
    let mut out = String::new();
    for piece in pieces(conversation, markers)? {
        match piece {
            Piece::Text(text) => out.push_str(&text),
            Piece::Marker(id) => out.push_str(&String::from_utf8_lossy(vocabulary.bytes(id))),
            Piece::Image(_) => {
                out.push_str("<|media_begin|>image<|media_content|><|media_pad|><|media_end|>");
            }
            Piece::Video(_) => out.push_str("<|kimi_k25_video_placeholder|>"),
        }
    }
    Ok(out)
}

fn pieces<'a>(conversation: &'a Conversation, markers: &'a Markers) -> Result<Vec<Piece<'a>>, PromptError> {
    check_partial(conversation)?;
    let mut builder = Builder { markers, pieces: Vec::new() };
    if !conversation.tools.is_empty() {
        builder.marker(markers.im_system);
        builder.text("tool_declare");
        builder.marker(markers.im_middle);
        builder.text(tool_declarations::declare(&conversation.tools));
        builder.marker(markers.im_end);
    }
    let messages = conversation.complete_messages();
    let history = conversation.history_len();
    let ids = tool_call_ids::native_ids(messages)?;
    for (index, (message, ids)) in messages.iter().zip(ids).enumerate() {
        let with_reasoning = index >= history && conversation.prints_reasoning();
        builder.message(index, message, ids, with_reasoning)?;
        builder.marker(markers.im_end);
    }
    match conversation.partial() {
        Some(partial) => builder.partial(messages.len(), partial, conversation)?,
        None if conversation.add_generation_prompt => builder.generation_prompt(conversation.thinking),
        None => {}
    }
    Ok(builder.pieces)
}

fn check_partial(conversation: &Conversation) -> Result<(), PromptError> {
    let complete = conversation.complete_messages();
    if let Some(index) = complete.iter().position(|message| message.partial) {
        return Err(PromptError::PartialNotLast { index });
    }
    match conversation.partial() {
        Some(partial) if !partial.tool_calls.is_empty() => {
            Err(PromptError::PartialWithToolCalls { index: complete.len() })
        }
        _ => Ok(()),
    }
}

/// Writes messages in Kimi's chat format.
struct Builder<'a> {
    markers: &'a Markers,
    pieces: Vec<Piece<'a>>,
}

impl<'a> Builder<'a> {
    fn marker(&mut self, id: TokenId) {
        self.pieces.push(Piece::Marker(id));
    }

    fn text(&mut self, text: impl Into<Cow<'a, str>>) {
        self.pieces.push(Piece::Text(text.into()));
    }

    /// Who speaks. A name takes the role's place.
    fn header(&mut self, message: &'a ChatMessage) {
        let (opening, role) = match message.role {
            Role::User => (self.markers.im_user, "user"),
            Role::Assistant => (self.markers.im_assistant, "assistant"),
            Role::System => (self.markers.im_system, "system"),
            Role::Tool => (self.markers.im_system, "tool"),
        };
        self.marker(opening);
        self.text(message.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(role));
        self.marker(self.markers.im_middle);
    }

    /// A complete message without its end; `ids` are those of its calls, or of the call it answers.
    fn message(
        &mut self,
        index: usize,
        message: &'a ChatMessage,
        ids: Vec<String>,
        with_reasoning: bool,
    ) -> Result<(), PromptError> {
        self.header(message);
        match message.role {
            Role::Assistant => {
                self.reasoning(if with_reasoning { message.thoughts().unwrap_or_default() } else { "" });
                self.content(index, message)?;
                self.tool_calls(message, ids);
            }
            Role::Tool => {
                self.text("## Return of ");
                for id in ids {
                    self.text(id);
                }
                self.text("\n");
                self.content(index, message)?;
            }
            Role::System | Role::User => self.content(index, message)?,
        }
        Ok(())
    }

    fn reasoning(&mut self, text: &'a str) {
        self.marker(self.markers.think);
        self.text(text);
        self.marker(self.markers.end_think);
    }

    fn content(&mut self, index: usize, message: &'a ChatMessage) -> Result<(), PromptError> {
        match &message.content {
            None => {}
            Some(Content::Text(text)) => self.text(text),
            Some(Content::Parts(parts)) => {
                for part in parts {
                    self.part(index, part)?;
                }
            }
        }
        Ok(())
    }

    /// Media is followed by a line break, text by nothing.
    fn part(&mut self, index: usize, part: &'a Part) -> Result<(), PromptError> {
        match part {
            Part::Text { text } => self.text(text),
            Part::ImageUrl { .. } => {
                self.pieces.push(Piece::Image(index));
                self.text("\n");
            }
            Part::VideoUrl { .. } => {
                self.pieces.push(Piece::Video(index));
                self.text("\n");
            }
            Part::Other { kind } => return Err(PromptError::UnknownPart { index, kind: kind.clone() }),
        }
        Ok(())
    }

    fn tool_calls(&mut self, message: &'a ChatMessage, ids: Vec<String>) {
        if message.tool_calls.is_empty() {
            return;
        }
        self.marker(self.markers.tool_calls_section_begin);
        for (call, id) in message.tool_calls.iter().zip(ids) {
            self.marker(self.markers.tool_call_begin);
            self.text(id);
            self.marker(self.markers.tool_call_argument_begin);
            match &call.function.arguments {
                Arguments::Text(json) => self.text(json),
                Arguments::Object(fields) => {
                    self.text(python_text::json(&Value::Object(fields.clone()), Separators::SPACED));
                }
            }
            self.marker(self.markers.tool_call_end);
        }
        self.marker(self.markers.tool_calls_section_end);
    }

    /// Opens the model's turn.
    fn generation_prompt(&mut self, thinking: bool) {
        self.marker(self.markers.im_assistant);
        self.text("assistant");
        self.marker(self.markers.im_middle);
        self.marker(self.markers.think);
        if !thinking {
            self.marker(self.markers.end_think);
        }
    }

    /// Opens the model's turn with the beginning of its answer; [`Conversation::output_start`] says where that leaves
    /// the model.
    fn partial(
        &mut self,
        index: usize,
        message: &'a ChatMessage,
        conversation: &Conversation,
    ) -> Result<(), PromptError> {
        self.header(message);
        let thoughts =
            if conversation.prints_reasoning() { message.thoughts().unwrap_or_default() } else { "" };
        if conversation.thinking && !has_content(message) {
            self.marker(self.markers.think);
            self.text(thoughts);
            return Ok(());
        }
        self.reasoning(thoughts);
        self.content(index, message)
    }
}
