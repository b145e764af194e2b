//! Reading an answer to a raw prompt: text and nothing else.

use std::sync::Arc;

use kimi_tokens::TokenId;

use super::content::ContentWriter;
use super::{OutputEvent, ParsedOutcome, TokenRole};
use crate::text_stream::TextStream;
use crate::{StopStrings, Vocabulary};

/// Reads one answer as plain text. Every split of the stream gives the same text.
#[derive(Debug)]
pub struct PlainParser {
    vocabulary: Arc<Vocabulary>,
    text: TextStream,
    content: ContentWriter,
    show_markers: bool,
}

impl PlainParser {
    /// A parser that leaves special tokens out, or shows them by name.
    pub fn new(vocabulary: Arc<Vocabulary>, stop_strings: StopStrings, show_markers: bool) -> Self {
        Self {
            vocabulary,
            text: TextStream::default(),
            content: ContentWriter::new(stop_strings),
            show_markers,
        }
    }

    /// Takes the next token and appends what it reveals to `out`; only [`OutputEvent::Content`] and
    /// [`OutputEvent::StopStringHit`] occur. After a stop string, tokens are ignored.
    pub fn push(&mut self, token: TokenId, out: &mut Vec<OutputEvent>) -> TokenRole {
        let special = self.vocabulary.is_special(token);
        if self.content.stopped() || (special && !self.show_markers) {
            return TokenRole::Marker;
        }
        let mut text = String::new();
        if special {
            self.text.finish(&mut text);
        }
        self.text.push(self.vocabulary.bytes(token), &mut text);
        self.content.push(&text, out);
        TokenRole::Content
    }

    /// Ends the answer and appends what was held back.
    pub fn finish(mut self, out: &mut Vec<OutputEvent>) -> ParsedOutcome {
        let mut text = String::new();
        self.text.finish(&mut text);
        self.content.push(&text, out);
        self.content.finish(out);
        ParsedOutcome { stop_string_hit: self.content.stopped(), ..ParsedOutcome::default() }
    }
}
