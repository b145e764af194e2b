//! The Responses API in terms of the chat API: requests into chat requests, answers' events into the API's own.

mod echo;
mod events;
mod request;

pub(crate) use echo::Echo;
pub(crate) use events::ResponseEvents;
pub(crate) use request::{Translated, to_chat};
