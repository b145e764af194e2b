#![doc = include_str!("../README.md")]

mod anthropic;
mod app;
mod auth;
mod chat_collect;
mod chat_stream;
mod choices;
mod completion_answer;
mod connection;
mod dialect;
mod error;
mod file_kind;
mod file_store;
mod gate;
mod generation;
mod guidance;
mod json_body;
mod json_depth;
mod limits;
pub mod metrics;
mod model_names;
mod openapi;
mod paced_body;
mod patience;
mod policy;
mod prepare;
mod responses;
mod routes;
mod serve;
mod sse;
mod state;
mod telemetry;
mod tenancy;
mod validate;
mod vllm_names;

pub use app::{App, AppConfig, MetricsText};
pub use auth::ApiKeys;
pub use error::ApiError;
pub use file_store::FileLimits;
pub use gate::AllowedHosts;
pub use limits::Limits;
pub use policy::{Contract, Policy};
pub use serve::serve;
pub use state::{LoadProgress, ModelCard, Service};
pub use validate::conversation_of;

use model_names::ModelNames;
