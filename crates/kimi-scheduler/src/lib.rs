#![doc = include_str!("../README.md")]

mod block_pool;
mod config;
mod error;
mod invariants;
mod prefix;
mod prompt_lookup;
mod queue;
mod restore;
mod scheduler;
mod sequence;
mod speculation;
mod step_plan;
mod tier;
mod update;

pub use config::{Limits, Load, MAX_SCORES, SchedulerConfig, SequenceRequest, Standing, Tenant};
pub use error::Rejection;
pub use prefix::{BlockKey, CacheScope};
pub use scheduler::Scheduler;
pub use speculation::Speculation;
pub use step_plan::{BlockId, PlanEntry, SequenceId, StepPlan};
pub use tier::{TierContents, TierPlan, TierReport};
pub use update::{FinishReason, Finished, Sample, SequenceUpdate};
