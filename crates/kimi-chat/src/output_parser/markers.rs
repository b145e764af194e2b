//! What a marker does in each state. No marker ever becomes text; one that is out of place is counted.

use kimi_tokens::TokenId;

use super::calls::OpenCall;
use super::{OutputEvent, OutputParser, State};

impl OutputParser {
    /// Takes a special token.
    pub(super) fn marker(&mut self, token: TokenId, out: &mut Vec<OutputEvent>) {
        let was_at_start = std::mem::replace(&mut self.at_start, false);
        let markers = self.markers;
        if token == markers.im_end || token == markers.eos {
            self.end_message(out);
        } else if token == markers.think {
            // The prompt has opened the reasoning already; some models open it once more.
            self.outcome.malformed += usize::from(!was_at_start);
        } else if token == markers.end_think {
            self.end_reasoning();
        } else if token == markers.tool_calls_section_begin {
            self.begin_section(out);
        } else if token == markers.tool_calls_section_end {
            self.end_section(out);
        } else if token == markers.tool_call_begin {
            self.begin_call(out);
        } else if token == markers.tool_call_argument_begin {
            self.begin_arguments(out);
        } else if token == markers.tool_call_end {
            self.end_call(out);
        } else {
            self.outcome.malformed += 1;
        }
    }

    fn end_reasoning(&mut self) {
        match self.state {
            State::Reasoning => self.state = State::Content,
            _ => self.outcome.malformed += 1,
        }
    }

    /// Also ends the reasoning: models forget `</think>` here, and the calls that follow are real.
    fn begin_section(&mut self, out: &mut Vec<OutputEvent>) {
        match self.state {
            State::Reasoning | State::Content => {
                self.content.finish(out);
                self.state = State::Section { stray: String::new() };
            }
            _ => self.outcome.malformed += 1,
        }
    }

    /// Opens a call; outside a section too. One that is still open breaks off.
    fn begin_call(&mut self, out: &mut Vec<OutputEvent>) {
        let in_section = match self.take_state() {
            State::Reasoning | State::Content | State::Ended => {
                self.content.finish(out);
                false
            }
            State::Section { stray } => {
                self.discard(&stray);
                true
            }
            State::Header { id, in_section } => {
                self.outcome.malformed += 1;
                self.calls.keep_broken(&id);
                in_section
            }
            State::Arguments { call, in_section } => {
                self.outcome.malformed += 1;
                self.close(call, out);
                in_section
            }
        };
        self.state = State::Header { id: String::new(), in_section };
    }

    fn begin_arguments(&mut self, out: &mut Vec<OutputEvent>) {
        let (header, in_section) = match self.take_state() {
            State::Header { id, in_section } => (id, in_section),
            // The call forgot to begin.
            State::Section { stray } => {
                self.outcome.malformed += 1;
                (stray, true)
            }
            other => {
                self.outcome.malformed += 1;
                self.state = other;
                return;
            }
        };
        let (call, well_formed) = self.calls.open(header, out);
        self.outcome.malformed += usize::from(!well_formed);
        self.state = State::Arguments { call, in_section };
    }

    fn end_call(&mut self, out: &mut Vec<OutputEvent>) {
        let in_section = match self.take_state() {
            State::Arguments { call, in_section } => {
                self.close(call, out);
                in_section
            }
            State::Header { id, in_section } => {
                self.outcome.malformed += 1;
                self.calls.keep_broken(&id);
                in_section
            }
            other => {
                self.outcome.malformed += 1;
                self.state = other;
                return;
            }
        };
        if in_section {
            self.state = State::Section { stray: String::new() };
        } else {
            self.leave_calls(out);
            self.content.skip_space();
        }
    }

    /// What follows a section is content.
    fn end_section(&mut self, out: &mut Vec<OutputEvent>) {
        match self.take_state() {
            State::Section { stray } => self.discard(&stray),
            State::Header { id, .. } => {
                self.outcome.malformed += 1;
                self.calls.keep_broken(&id);
            }
            State::Arguments { call, .. } => {
                self.outcome.malformed += 1;
                self.close(call, out);
            }
            other => {
                self.outcome.malformed += 1;
                self.state = other;
                return;
            }
        }
        self.leave_calls(out);
    }

    /// The model ended its message. A call it left open counts if its arguments are whole.
    fn end_message(&mut self, out: &mut Vec<OutputEvent>) {
        match self.take_state() {
            State::Reasoning | State::Content | State::Ended => {}
            State::Section { stray } => {
                self.outcome.malformed += 1;
                self.calls.keep_broken(&stray);
            }
            State::Header { id, .. } => {
                self.outcome.malformed += 1;
                self.calls.keep_broken(&id);
            }
            State::Arguments { call, .. } if call.is_json() => {
                self.outcome.malformed += 1;
                self.close(call, out);
            }
            State::Arguments { mut call, .. } => {
                self.outcome.malformed += 1;
                self.outcome.unfinished_tool_call = self.calls.announce_late(&mut call, out);
            }
        }
        self.state = State::Ended;
    }

    fn close(&mut self, call: OpenCall, out: &mut Vec<OutputEvent>) {
        let well_formed = self.calls.close(call, out);
        self.outcome.malformed += usize::from(!well_formed);
    }

    /// Text between calls is nothing, unless it is more than white space.
    fn discard(&mut self, stray: &str) {
        if !stray.trim().is_empty() {
            self.outcome.malformed += 1;
            self.calls.keep_broken(stray);
        }
    }

    fn leave_calls(&mut self, out: &mut Vec<OutputEvent>) {
        self.state = State::Content;
        self.release_broken(out);
        if self.content.stopped() {
            self.state = State::Ended;
        }
    }

    /// Every caller puts a state back.
    fn take_state(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Ended)
    }
}
