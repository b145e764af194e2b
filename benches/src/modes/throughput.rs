//! Closed loops: as much as so many clients can get.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    bench::{Bench, BenchArgs},
    load::LoadArgs,
    modes::Mode,
    report::{Chart, Findings, Section},
    stats::Point,
};

/// Options of `kimi-bench throughput`.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct Throughput {
    /// Clients that wait for their answer and ask again, one measurement for each number
    #[arg(long, value_delimiter = ',', default_value = "1,4,16", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Vec<u32>,
    /// Conversations of each measurement, at least; never fewer than two for each client
    #[arg(long, default_value_t = 32)]
    requests: usize,
    #[command(flatten)]
    #[serde(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    #[serde(flatten)]
    bench: BenchArgs,
}

impl Mode for Throughput {
    fn name(&self) -> &'static str {
        "throughput"
    }

    fn bench(&self) -> &BenchArgs {
        &self.bench
    }

    async fn run(&self, bench: &Bench) -> Result<Findings> {
        let load = self.load.load();
        let mut points = Vec::new();
        for &clients in &self.concurrency {
            let name = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
            let count = self.requests.max(2 * clients as usize);
            let outcome = bench.closed(&name, &load, clients as usize, count).await?;
            points.push(Point::new(&name, f64::from(clients), &outcome, bench.slo));
        }
        let mut findings = Findings::default();
        let speed = |point: Option<&Point>| point.map(|point| point.output_tokens_per_second);
        if let [first, .., last] = &points[..] {
            findings.ratio(
                &format!("output of {} over {}", last.name, first.name),
                speed(Some(last)),
                speed(Some(first)),
                "output tokens per second",
            );
        }
        if !load.shares_prefixes() {
            findings.expect_misses(points.iter());
        }
        let title = "Closed loop: each client asks again when it is answered".to_owned();
        findings.sections.push(Section {
            title,
            axis: "clients".into(),
            numeric: true,
            charts: Chart::ALL.to_vec(),
            points,
        });
        Ok(findings)
    }
}
