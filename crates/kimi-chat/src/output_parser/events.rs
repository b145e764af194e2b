//! Appending texts to a list of events, joined where they continue the last one.

use super::OutputEvent;

pub(super) fn reasoning(text: &str, out: &mut Vec<OutputEvent>) {
    match out.last_mut() {
        _ if text.is_empty() => {}
        Some(OutputEvent::Reasoning(last)) => last.push_str(text),
        _ => out.push(OutputEvent::Reasoning(text.to_owned())),
    }
}

pub(super) fn content(text: &str, out: &mut Vec<OutputEvent>) {
    match out.last_mut() {
        _ if text.is_empty() => {}
        Some(OutputEvent::Content(last)) => last.push_str(text),
        _ => out.push(OutputEvent::Content(text.to_owned())),
    }
}

pub(super) fn arguments(call: usize, text: &str, out: &mut Vec<OutputEvent>) {
    match out.last_mut() {
        _ if text.is_empty() => {}
        Some(OutputEvent::ToolArguments { index, json }) if *index == call => json.push_str(text),
        _ => out.push(OutputEvent::ToolArguments { index: call, json: text.to_owned() }),
    }
}
