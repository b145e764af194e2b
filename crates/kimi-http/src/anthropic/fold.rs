//! A whole message: the events of a streamed one, folded.

use kimi_api::anthropic::{BlockDelta, Message, OutputBlock, StreamEvent};
use serde_json::Value;

use crate::dialect::Fold;

/// What the events so far add up to.
#[derive(Debug, Default)]
pub(crate) struct MessageFold {
    message: Option<Message>,
    /// The JSON text of the call that is open.
    input: String,
    complete: bool,
}

impl Fold<StreamEvent> for MessageFold {
    type Whole = Message;

    fn take(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::MessageStart { message } => self.message = Some(message),
            StreamEvent::MessageStop => self.complete = true,
            event => {
                if let Some(message) = &mut self.message {
                    grow(message, &mut self.input, event);
                }
            }
        }
    }

    fn finish(self) -> Option<Message> {
        self.message.filter(|_| self.complete)
    }
}

fn grow(message: &mut Message, input: &mut String, event: StreamEvent) {
    match event {
        StreamEvent::ContentBlockStart { content_block, .. } => message.content.push(content_block),
        StreamEvent::ContentBlockDelta { delta, .. } => match (message.content.last_mut(), delta) {
            (Some(OutputBlock::Text { text }), BlockDelta::TextDelta { text: more }) => text.push_str(&more),
            (Some(OutputBlock::Thinking { thinking, .. }), BlockDelta::ThinkingDelta { thinking: more }) => {
                thinking.push_str(&more);
            }
            (
                Some(OutputBlock::Thinking { signature, .. }),
                BlockDelta::SignatureDelta { signature: whole },
            ) => {
                *signature = whole;
            }
            (Some(OutputBlock::ToolUse { .. }), BlockDelta::InputJsonDelta { partial_json }) => {
                input.push_str(&partial_json);
            }
            _ => {}
        },
        StreamEvent::ContentBlockStop { .. } => {
            if let Some(OutputBlock::ToolUse { input: object, .. }) = message.content.last_mut() {
                // A call that the token limit cut has no object yet; the stop reason says so.
                if let Ok(whole @ Value::Object(_)) = serde_json::from_str(input) {
                    *object = whole;
                }
                input.clear();
            }
        }
        StreamEvent::MessageDelta { delta, usage } => {
            message.stop_reason = Some(delta.stop_reason);
            message.stop_sequence = delta.stop_sequence;
            message.usage = usage;
        }
        StreamEvent::MessageStart { .. }
        | StreamEvent::MessageStop
        | StreamEvent::Ping
        | StreamEvent::Error { .. } => {}
    }
}
