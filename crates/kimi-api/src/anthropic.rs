//! The Messages API: `POST /v1/messages` and `POST /v1/messages/count_tokens`.
//!
//! Source: the public reference of Anthropic's API and the types of its Python SDK.

mod answer;
mod block;
mod error;
mod event;
mod request;
mod schema;

pub use answer::{Message, OutputBlock, StopReason, TokenCount, Usage};
pub use block::{Blocks, InputBlock, MediaSource};
pub use error::{ErrorBody, ErrorDetail};
pub use event::{BlockDelta, MessageDelta, StreamEvent};
pub use request::{
    InputMessage, MessagesRequest, OutputConfig, OutputFormat, Speaker, Thinking, ToolChoice, ToolChoiceKind,
    ToolParam,
};
