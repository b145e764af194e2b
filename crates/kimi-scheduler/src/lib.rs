#![doc = include_str!("../README.md")]

mod block_pool;
mod config;
mod error;
mod invariants;
mod prefix;
mod queue;
mod scheduler;
mod sequence;
mod step_plan;
mod update;

pub use config::{Limits, Load, SchedulerConfig, SequenceRequest, Standing, Tenant};
pub use error::Rejection;
pub use prefix::CacheScope;
pub use scheduler::Scheduler;
pub use step_plan::{BlockId, PlanEntry, SequenceId, StepPlan};
pub use update::{FinishReason, Finished, Sample, SequenceUpdate};
