//! The streamed answer. Each event is sent as `event: NAME` and one `data:` line.

use schemars::JsonSchema;
use serde::Serialize;

use super::{ErrorDetail, Message, OutputBlock, StopReason, Usage};

/// One server-sent event.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StreamEvent {
    /// The answer begins.
    MessageStart {
        /// Without content.
        message: Message,
    },
    /// A block begins.
    ContentBlockStart {
        /// Its place in the answer's content.
        index: usize,
        /// Still empty.
        content_block: OutputBlock,
    },
    /// More of a block.
    ContentBlockDelta {
        /// Which.
        index: usize,
        /// What is added.
        delta: BlockDelta,
    },
    /// A block is complete.
    ContentBlockStop {
        /// Which.
        index: usize,
    },
    /// How the answer ended and what it cost.
    MessageDelta {
        /// How it ended.
        delta: MessageDelta,
        /// What it cost, all of it.
        usage: Usage,
    },
    /// The answer is complete.
    MessageStop,
    /// Nothing has happened for a while.
    Ping,
    /// The answer breaks off.
    Error {
        /// Why.
        error: ErrorDetail,
        /// Names the request in the server's log.
        request_id: String,
    },
}

impl StreamEvent {
    /// The event's name, the same as its `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
            Self::Ping => "ping",
            Self::Error { .. } => "error",
        }
    }
}

/// An addition to a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BlockDelta {
    /// To a thinking block.
    ThinkingDelta {
        /// More thoughts.
        thinking: String,
    },
    /// To a thinking block, before it ends.
    SignatureDelta {
        /// The whole signature.
        signature: String,
    },
    /// To a text block.
    TextDelta {
        /// More text.
        text: String,
    },
    /// To a call.
    InputJsonDelta {
        /// More of the input's JSON text.
        partial_json: String,
    },
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MessageDelta {
    /// Why.
    pub stop_reason: StopReason,
    /// The stop sequence, if one ended it.
    pub stop_sequence: Option<String>,
}
