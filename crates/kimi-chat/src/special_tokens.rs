//! The markers of Kimi's chat format, resolved once against a vocabulary.

use kimi_tokens::TokenId;

use crate::{Vocabulary, VocabularyError};

/// Ids of the markers that prompts are built with and outputs are parsed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Markers {
    /// `[EOS]`: end of sequence; some checkpoints stop with it instead of `im_end`.
    pub eos: TokenId,
    /// `<|im_end|>`: end of a message.
    pub im_end: TokenId,
    /// `<|im_user|>`: opens a user message.
    pub im_user: TokenId,
    /// `<|im_assistant|>`: opens a message of the model.
    pub im_assistant: TokenId,
    /// `<|im_system|>`: opens every other message: system, tool results, tool declarations.
    pub im_system: TokenId,
    /// `<|im_middle|>`: between a message's header and its body.
    pub im_middle: TokenId,
    /// `<think>`: opens the reasoning.
    pub think: TokenId,
    /// `</think>`: closes the reasoning.
    pub end_think: TokenId,
    /// `<|tool_calls_section_begin|>`: opens the calls of a message.
    pub tool_calls_section_begin: TokenId,
    /// `<|tool_calls_section_end|>`: closes them.
    pub tool_calls_section_end: TokenId,
    /// `<|tool_call_begin|>`: opens a call; its id follows.
    pub tool_call_begin: TokenId,
    /// `<|tool_call_argument_begin|>`: between a call's id and its arguments.
    pub tool_call_argument_begin: TokenId,
    /// `<|tool_call_end|>`: closes a call.
    pub tool_call_end: TokenId,
    /// The markers around images; `None` for a vocabulary of a text-only checkpoint.
    pub media: Option<MediaMarkers>,
}

/// Ids of the markers around an image or a video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaMarkers {
    /// `<|media_begin|>`: before the kind of media.
    pub begin: TokenId,
    /// `<|media_content|>`: between the kind and the placeholders.
    pub content: TokenId,
    /// `<|media_end|>`: after the placeholders.
    pub end: TokenId,
    /// `<|media_pad|>`: the placeholder, one for each vector of the vision tower.
    pub pad: TokenId,
}

impl Markers {
    /// Looks every marker up by name; the error names the first one that is missing.
    pub fn resolve(vocabulary: &Vocabulary) -> Result<Self, VocabularyError> {
        let id = |name: &'static str| vocabulary.special(name).ok_or(VocabularyError::MissingMarker { name });
        Ok(Self {
            eos: id("[EOS]")?,
            im_end: id("<|im_end|>")?,
            im_user: id("<|im_user|>")?,
            im_assistant: id("<|im_assistant|>")?,
            im_system: id("<|im_system|>")?,
            im_middle: id("<|im_middle|>")?,
            think: id("<think>")?,
            end_think: id("</think>")?,
            tool_calls_section_begin: id("<|tool_calls_section_begin|>")?,
            tool_calls_section_end: id("<|tool_calls_section_end|>")?,
            tool_call_begin: id("<|tool_call_begin|>")?,
            tool_call_argument_begin: id("<|tool_call_argument_begin|>")?,
            tool_call_end: id("<|tool_call_end|>")?,
            media: MediaMarkers::resolve(vocabulary),
        })
    }

    /// The tokens that end a generation, for the engine: `<|im_end|>` and `[EOS]`.
    pub fn stop_tokens(&self) -> [TokenId; 2] {
        [self.im_end, self.eos]
    }
}

impl MediaMarkers {
    fn resolve(vocabulary: &Vocabulary) -> Option<Self> {
        Some(Self {
            begin: vocabulary.special("<|media_begin|>")?,
            content: vocabulary.special("<|media_content|>")?,
            end: vocabulary.special("<|media_end|>")?,
            pad: vocabulary.special("<|media_pad|>")?,
        })
    }
}
