//! One file a route.

mod account;
mod chat;
mod completions;
pub(crate) mod files;
mod health;
mod metrics;
mod models;
mod playground;
mod tokenize;
mod upload;

pub(crate) use account::balance;
pub(crate) use chat::create_chat_completion;
pub(crate) use completions::create_completion;
pub(crate) use health::{health, load, version};
pub(crate) use metrics::metrics;
pub(crate) use models::{list_models, retrieve_model};
pub(crate) use playground::playground;
pub(crate) use tokenize::{detokenize, estimate, tokenize};
