//! From sampled tokens to what a client reads: reasoning, content, tool calls.
//!
//! Kimi's markers are single tokens, so the parser works on ids: nothing has to be held back to recognise a marker,
//! and a model that merely spells `<think>` in letters stays text. Malformed output degrades to content and is
//! counted; it never fails a request.

mod calls;
mod content;
mod events;
mod header;
mod markers;
mod options;
mod plain;

use std::sync::Arc;

use kimi_tokens::TokenId;

pub use options::{ParserOptions, ToolSignature};
pub use plain::PlainParser;

use crate::text_stream::TextStream;
use crate::{Markers, OutputStart, Vocabulary};
use calls::{CallWriter, OpenCall};
use content::ContentWriter;

/// What a client is told, in order. Texts are never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputEvent {
    /// More of the reasoning.
    Reasoning(String),
    /// More of the answer.
    Content(String),
    /// A call begins.
    ToolCallStarted {
        /// Position among the calls of this answer.
        index: usize,
        /// `functions.NAME:K`, unique in this answer.
        id: String,
        /// The function.
        name: String,
    },
    /// More of a call's arguments.
    ToolArguments {
        /// Position of the call.
        index: usize,
        /// A piece of JSON text, as the model wrote it.
        json: String,
    },
    /// A call is complete.
    ToolCallFinished {
        /// Position of the call.
        index: usize,
    },
    /// The content ended at a stop string; generating on is pointless.
    StopStringHit {
        /// The one that ended it.
        stop: String,
    },
}

/// Which part of the answer a token belongs to. Log probabilities are reported for the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRole {
    /// Text of the reasoning.
    Reasoning,
    /// Text of the answer.
    Content,
    /// Text of a tool call: its id or its arguments.
    ToolCall,
    /// A special token, or a token after the end.
    Marker,
}

/// What the whole output was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParsedOutcome {
    /// Complete calls; any makes the finish reason `tool_calls`.
    pub tool_calls: usize,
    /// A call was begun but not ended: the token limit cut it, or it broke off.
    pub unfinished_tool_call: bool,
    /// Tokens of text in the reasoning.
    pub reasoning_tokens: usize,
    /// Places where the output did not follow the format.
    pub malformed: usize,
    /// A stop string ended the content.
    pub stop_string_hit: bool,
}

/// Parses one answer. Every split of the stream gives the same texts.
#[derive(Debug)]
pub struct OutputParser {
    vocabulary: Arc<Vocabulary>,
    markers: Markers,
    state: State,
    /// Nothing but an opening `<think>` has come yet.
    at_start: bool,
    text: TextStream,
    content: ContentWriter,
    calls: CallWriter,
    outcome: ParsedOutcome,
}

/// Where in the format the output is.
#[derive(Debug)]
enum State {
    Reasoning,
    Content,
    /// In a tool section, between calls. Text has no place here; it is kept in case a call forgot to begin.
    Section {
        stray: String,
    },
    /// In a call, before its arguments.
    Header {
        id: String,
        in_section: bool,
    },
    /// In the arguments of a call.
    Arguments {
        call: OpenCall,
        in_section: bool,
    },
    /// After the end of the message or a stop string.
    Ended,
}

impl OutputParser {
    /// A parser for the output that follows one prompt.
    pub fn new(vocabulary: Arc<Vocabulary>, markers: Markers, options: ParserOptions) -> Self {
        Self {
            vocabulary,
            markers,
            state: match options.start {
                OutputStart::Reasoning => State::Reasoning,
                OutputStart::Content => State::Content,
            },
            at_start: true,
            text: TextStream::default(),
            content: ContentWriter::new(options.stop_strings),
            calls: CallWriter::new(options.tools, options.first_tool_index),
            outcome: ParsedOutcome::default(),
        }
    }

    /// Hop 9a of 9. Takes the next token and appends what it reveals to `out`. Total: any token in any state.
    ///
    /// Text that may still become part of a character or of a stop string is held back until it is certain. After the
    /// end of the message or a stop string, tokens are ignored.
    pub fn push(&mut self, token: TokenId, out: &mut Vec<OutputEvent>) -> TokenRole {
        if matches!(self.state, State::Ended) {
            return TokenRole::Marker;
        }
        if self.vocabulary.is_special(token) {
            self.end_text(out);
            self.marker(token, out);
            return TokenRole::Marker;
        }
        let role = match self.state {
            State::Reasoning => TokenRole::Reasoning,
            State::Content | State::Ended => TokenRole::Content,
            State::Section { .. } | State::Header { .. } | State::Arguments { .. } => TokenRole::ToolCall,
        };
        self.at_start = false;
        self.outcome.reasoning_tokens += usize::from(role == TokenRole::Reasoning);
        let mut text = String::new();
        self.text.push(self.vocabulary.bytes(token), &mut text);
        self.append(&text, out);
        role
    }

    /// Ends the output and appends what was held back. A call that is still open stays unfinished.
    pub fn finish(mut self, out: &mut Vec<OutputEvent>) -> ParsedOutcome {
        self.end_text(out);
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Arguments { mut call, .. } => {
                self.outcome.unfinished_tool_call = true;
                let known = self.calls.announce_late(&mut call, out);
                self.outcome.malformed += usize::from(!known);
            }
            // An id that was cut in the middle is of no use to anyone.
            State::Header { .. } => self.outcome.unfinished_tool_call = true,
            State::Section { stray } => self.calls.keep_broken(&stray),
            State::Reasoning | State::Content | State::Ended => {}
        }
        self.release_broken(out);
        self.content.finish(out);
        self.outcome.tool_calls = self.calls.finished();
        self.outcome.stop_string_hit = self.content.stopped();
        self.outcome
    }

    /// Tokens of text in the reasoning so far.
    pub fn reasoning_tokens(&self) -> usize {
        self.outcome.reasoning_tokens
    }

    /// A marker ends the text before it: an unfinished character stays unfinished.
    fn end_text(&mut self, out: &mut Vec<OutputEvent>) {
        let mut text = String::new();
        self.text.finish(&mut text);
        self.append(&text, out);
    }

    /// Text goes where the state says.
    fn append(&mut self, text: &str, out: &mut Vec<OutputEvent>) {
        if text.is_empty() {
            return;
        }
        match &mut self.state {
            State::Reasoning => events::reasoning(text, out),
            State::Content => {
                if self.content.push(text, out) {
                    self.state = State::Ended;
                }
            }
            State::Section { stray } => stray.push_str(text),
            State::Header { id, .. } => id.push_str(text),
            State::Arguments { call, .. } => call.push(text, out),
            State::Ended => {}
        }
    }

    /// Broken calls become content if no call could be read at all.
    fn release_broken(&mut self, out: &mut Vec<OutputEvent>) {
        if let Some(broken) = self.calls.take_broken() {
            self.content.push(&broken, out);
        }
    }
}
