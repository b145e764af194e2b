//! What a prompt is made from, and in which state the model's answer to it begins.

use kimi_api::{ChatMessage, Content, MediaUrl, Part, Role, Tool};

/// A validated conversation with its switches resolved to the template's variables.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// All messages in order. If the last one is `partial`, the answer continues it.
    pub messages: Vec<ChatMessage>,
    /// The declared tools, those of single messages included; `messages[i].tools` is not read here.
    pub tools: Vec<Tool>,
    /// Whether the model thinks before it answers.
    pub thinking: bool,
    /// Whether past reasoning stays in the prompt (`keep: "all"`). Without it only the reasoning of a running tool
    /// loop stays.
    pub preserve_thinking: bool,
    /// Whether the prompt ends by opening the model's turn; true for every chat request. A `partial` last message
    /// opens the turn by itself.
    pub add_generation_prompt: bool,
}

/// The state in which the model's output begins; the prompt decides it, not the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStart {
    /// The prompt ends inside `<think>`.
    Reasoning,
    /// The prompt closed the reasoning, or has begun the content.
    Content,
}

/// An image or a video of a message, as the client refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaPart<'a> {
    /// An image.
    Image(&'a MediaUrl),
    /// A video.
    Video(&'a MediaUrl),
}

impl Conversation {
    /// The images and videos of all messages, whoever said them, in the order in which the prompt has them.
    pub fn media(&self) -> impl Iterator<Item = MediaPart<'_>> {
        self.messages.iter().flat_map(parts).filter_map(|part| match part {
            Part::ImageUrl { image_url } => Some(MediaPart::Image(image_url)),
            Part::VideoUrl { video_url } => Some(MediaPart::Video(video_url)),
            Part::Text { .. } | Part::Other { .. } => None,
        })
    }

    /// Where the output begins: inside the reasoning, unless thinking is off or a partial message is past it.
    pub fn output_start(&self) -> OutputStart {
        let in_content = match self.partial() {
            Some(partial) => !self.thinking || has_content(partial),
            None => !self.thinking,
        };
        if in_content { OutputStart::Content } else { OutputStart::Reasoning }
    }

    /// Calls the model made so far. Kimi's ids count them over the whole conversation, so this is the index of the
    /// next one.
    pub fn past_tool_calls(&self) -> usize {
        self.messages
            .iter()
            .filter(|message| message.role == Role::Assistant)
            .map(|message| message.tool_calls.len())
            .sum()
    }

    /// The last message, if the answer continues it.
    pub(crate) fn partial(&self) -> Option<&ChatMessage> {
        self.messages.last().filter(|message| message.partial && message.role == Role::Assistant)
    }

    /// The messages that are complete.
    pub(crate) fn complete_messages(&self) -> &[ChatMessage] {
        let complete = self.messages.len() - usize::from(self.partial().is_some());
        &self.messages[..complete]
    }

    /// How many of the complete messages are history, whose reasoning the model no longer sees: all up to its last
    /// answer without tool calls.
    pub(crate) fn history_len(&self) -> usize {
        if self.preserve_thinking {
            return 0;
        }
        let is_answer =
            |message: &ChatMessage| message.role == Role::Assistant && message.tool_calls.is_empty();
        self.complete_messages().iter().rposition(is_answer).map_or(0, |last| last + 1)
    }

    /// Whether reasoning after the history is printed.
    pub(crate) fn prints_reasoning(&self) -> bool {
        self.thinking || self.preserve_thinking
    }
}

/// Whether a message says something.
pub(crate) fn has_content(message: &ChatMessage) -> bool {
    message.content.as_ref().is_some_and(|content: &Content| !content.is_empty())
}

/// The parts of a message that has parts.
fn parts(message: &ChatMessage) -> &[Part] {
    match &message.content {
        Some(Content::Parts(parts)) => parts,
        Some(Content::Text(_)) | None => &[],
    }
}
