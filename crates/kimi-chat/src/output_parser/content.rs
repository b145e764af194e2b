//! Writing content: stop strings are looked for here and nowhere else.

use super::{OutputEvent, events};
use crate::StopStrings;
use crate::stop_strings::StopMatcher;

/// Passes content on until a stop string ends it.
#[derive(Debug)]
pub(super) struct ContentWriter {
    matcher: StopMatcher,
    skip_space: bool,
    stopped: bool,
}

impl ContentWriter {
    pub(super) fn new(stop_strings: StopStrings) -> Self {
        Self { matcher: StopMatcher::new(stop_strings), skip_space: false, stopped: false }
    }

    /// Takes more content; true when a stop string ended it. Content after that is dropped.
    pub(super) fn push(&mut self, text: &str, out: &mut Vec<OutputEvent>) -> bool {
        let text = if self.skip_space { text.trim_start() } else { text };
        if self.stopped || text.is_empty() {
            return self.stopped;
        }
        self.skip_space = false;
        let mut certain = String::new();
        let hit = self.matcher.push(text, &mut certain);
        events::content(&certain, out);
        if let Some(stop) = hit {
            self.stopped = true;
            out.push(OutputEvent::StopStringHit { stop });
        }
        self.stopped
    }

    /// White space up to the next text is not content: it separates calls that came without a section.
    pub(super) fn skip_space(&mut self) {
        self.skip_space = true;
    }

    /// Gives out what was held back: no stop string can grow over a tool call or the end.
    pub(super) fn finish(&mut self, out: &mut Vec<OutputEvent>) {
        let mut rest = String::new();
        self.matcher.finish(&mut rest);
        events::content(&rest, out);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stopped
    }
}
