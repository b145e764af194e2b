//! Writing tool calls: announcing them under a native id, streaming their arguments, and keeping what was broken.

use std::collections::HashSet;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::header::Header;
use super::{OutputEvent, ToolSignature, events};
use crate::tool_call_ids::native_id;

/// A call whose arguments are coming.
#[derive(Debug)]
pub(super) struct OpenCall {
    /// What stood in the place of its id.
    header: String,
    /// Its position, once it was announced.
    index: Option<usize>,
    /// Arguments without leading white space.
    arguments: String,
    /// How much of them was given out.
    sent: usize,
}

impl OpenCall {
    /// Takes more of the arguments and gives out what is certain: white space at the end may turn out to be trailing.
    pub(super) fn push(&mut self, text: &str, out: &mut Vec<OutputEvent>) {
        let text = if self.arguments.is_empty() { text.trim_start() } else { text };
        self.arguments.push_str(text);
        self.give_out(out);
    }

    fn give_out(&mut self, out: &mut Vec<OutputEvent>) {
        let certain = self.arguments.trim_end().len();
        if let Some(index) = self.index
            && certain > self.sent
        {
            events::arguments(index, &self.arguments[self.sent..certain], out);
            self.sent = certain;
        }
    }

    /// Whether the arguments are JSON.
    pub(super) fn is_json(&self) -> bool {
        serde_json::from_str::<IgnoredAny>(&self.arguments).is_ok()
    }
}

/// Announces calls and counts them.
#[derive(Debug)]
pub(super) struct CallWriter {
    tools: Vec<ToolSignature>,
    first_tool_index: usize,
    used_ids: HashSet<String>,
    announced: usize,
    finished: usize,
    broken: String,
}

impl CallWriter {
    pub(super) fn new(tools: Vec<ToolSignature>, first_tool_index: usize) -> Self {
        let used_ids = HashSet::new();
        Self { tools, first_tool_index, used_ids, announced: 0, finished: 0, broken: String::new() }
    }

    /// Opens a call by what stands in the place of its id. It is announced at once if that names the tool, else when
    /// its arguments are complete. False when it is no id at all.
    pub(super) fn open(&mut self, header: String, out: &mut Vec<OutputEvent>) -> (OpenCall, bool) {
        let parsed = Header::parse(&header);
        let well_formed = parsed != Header::Garbage;
        let index = match (parsed, self.tools.as_slice()) {
            (Header::Named { name, id }, _) => Some(self.announce(&id, name, out)),
            (Header::Bare, [only]) => {
                let name = only.name.clone();
                Some(self.announce("", name, out))
            }
            (Header::Bare | Header::Garbage, _) => None,
        };
        (OpenCall { header, index, arguments: String::new(), sent: 0 }, well_formed)
    }

    /// Ends a call. False when its arguments are not JSON or its tool could not be told; in the latter case there is
    /// no call.
    pub(super) fn close(&mut self, mut call: OpenCall, out: &mut Vec<OutputEvent>) -> bool {
        let is_json = call.is_json();
        if !self.announce_late(&mut call, out) {
            return false;
        }
        if let Some(index) = call.index {
            if call.sent == 0 {
                // No arguments: clients parse the text, and an empty one is not JSON.
                events::arguments(index, "{}", out);
            }
            out.push(OutputEvent::ToolCallFinished { index });
            self.finished += 1;
        }
        is_json
    }

    /// Announces a call whose id did not name its tool by its arguments; one that stays unknown is broken: false.
    pub(super) fn announce_late(&mut self, call: &mut OpenCall, out: &mut Vec<OutputEvent>) -> bool {
        if call.index.is_some() {
            return true;
        }
        if let Some(name) = self.infer(&call.arguments) {
            call.index = Some(self.announce("", name, out));
            call.give_out(out);
        } else {
            let header = std::mem::take(&mut call.header);
            self.keep_broken(&header);
            self.keep_broken(&call.arguments);
        }
        call.index.is_some()
    }

    fn announce(&mut self, id: &str, name: String, out: &mut Vec<OutputEvent>) -> usize {
        let index = self.announced;
        let id = native_id(id, &name, self.first_tool_index + index, &mut self.used_ids);
        out.push(OutputEvent::ToolCallStarted { index, id, name });
        self.announced += 1;
        index
    }

    /// The tool these arguments fit best: most known keys, fewest unknown ones; the first declared among equals.
    fn infer(&self, arguments: &str) -> Option<String> {
        let arguments: Map<String, Value> = serde_json::from_str(arguments).ok()?;
        let fit = |tool: &ToolSignature| {
            let known = arguments.keys().filter(|key| tool.arguments.contains(key)).count();
            (known, std::cmp::Reverse(tool.arguments.len()))
        };
        let best = self.tools.iter().rev().max_by_key(|tool| fit(tool))?;
        let plausible = self.tools.len() == 1 || arguments.is_empty() || fit(best).0 > 0;
        plausible.then(|| best.name.clone())
    }

    /// Remembers text of a call that cannot be read.
    pub(super) fn keep_broken(&mut self, text: &str) {
        self.broken.push_str(text);
    }

    /// The text of the broken calls, if it is to be shown: when no call could be read.
    pub(super) fn take_broken(&mut self) -> Option<String> {
        let broken = std::mem::take(&mut self.broken);
        (self.announced == 0 && !broken.trim().is_empty()).then_some(broken)
    }

    /// Complete calls so far.
    pub(super) fn finished(&self) -> usize {
        self.finished
    }
}
