#![doc = include_str!("../README.md")]

mod config;
mod constraint;
mod drain_rate;
mod engine_loop;
mod error;
mod fake_runner;
mod handle;
mod live_request;
mod media;
pub mod metrics;
mod pace;
mod request;
mod row_cost;
mod runner;
mod start;
mod stream;

pub use config::{EngineConfig, EngineLimits};
pub use constraint::{Constraint, ConstraintState, GuideError, GuideSource, TokenGuide};
pub use error::{EngineFailure, SubmitError};
pub use fake_runner::{FakeAnswer, FakeFailure, FakeFailureKind, FakeRunner, FakeTokens};
pub use handle::{EngineHandle, EngineState};
pub use kimi_scheduler::{
    CacheScope, FinishReason, Finished, Load, SchedulerConfig, Speculation, Standing, Tenant, TierContents,
};
pub use request::{GenerateRequest, Sampling};
pub use runner::{ModelRunner, NewSequence, RunnerError, StepBatch, StepOutput};
pub use start::{EngineThread, start};
pub use stream::{GenerationStream, SampledToken, TokenEvent, TokenLogprobs};
