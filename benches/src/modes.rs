//! What can be measured; each mode gives findings.

pub(crate) mod interference;
pub(crate) mod latency;
pub(crate) mod prefix;
pub(crate) mod serve;
pub(crate) mod throughput;

use anyhow::Result;
use serde::Serialize;

use crate::{
    bench::{Bench, BenchArgs},
    report::Findings,
};

/// A way to measure, with its options.
pub(crate) trait Mode: Serialize {
    fn name(&self) -> &'static str;
    fn bench(&self) -> &BenchArgs;
    async fn run(&self, bench: &Bench) -> Result<Findings>;
}
