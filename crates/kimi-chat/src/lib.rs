#![doc = include_str!("../README.md")]

mod conversation;
mod media;
mod output_parser;
mod prompt;
mod python_text;
mod special_tokens;
mod stop_strings;
mod text_stream;
mod tool_call_ids;
mod tool_declarations;
mod vocabulary;

pub use conversation::{Conversation, MediaPart, OutputStart};
pub use media::{Clip, MediaBudget, MediaError, PreparedMedia, prepare_image, prepare_video};
pub use output_parser::{
    OutputEvent, OutputParser, ParsedOutcome, ParserOptions, PlainParser, TokenRole, ToolSignature,
};
pub use prompt::{PromptError, encode, render};
pub use special_tokens::{Markers, MediaMarkers};
pub use stop_strings::StopStrings;
pub use tool_declarations::in_reading_order;
pub use vocabulary::{Vocabulary, VocabularyError};
