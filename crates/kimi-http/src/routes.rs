//! One file a route.

mod chat;
mod health;
mod metrics;
mod models;

pub(crate) use chat::create_chat_completion;
pub(crate) use health::{health, version};
pub(crate) use metrics::metrics;
pub(crate) use models::{list_models, retrieve_model};
