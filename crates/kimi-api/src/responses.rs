//! The Responses API: `POST /v1/responses`, without stored state.
//!
//! Source: the public reference of OpenAI's API and the types of its Python SDK.

mod answer;
mod event;
mod input;
mod request;
mod schema;

pub use answer::{
    ContentPart, IncompleteDetails, InputTokensDetails, ItemStatus, OutputItem, OutputTokensDetails,
    Response, ResponseError, ResponseStatus, ResponseUsage,
};
pub use event::{Event, StreamEvent};
pub use input::{Input, InputItem, TextPart};
pub use request::{ReasoningConfig, ResponsesRequest, TextConfig, ToolChoice};
