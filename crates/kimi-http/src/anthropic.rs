//! The Messages API in terms of the chat API: requests into chat requests, answers' events into the API's own.

mod errors;
mod events;
mod fold;
mod request;

pub(crate) use errors::{adapt, is_spoken_at};
pub(crate) use events::MessageEvents;
pub(crate) use request::{Translated, to_chat, tool};
