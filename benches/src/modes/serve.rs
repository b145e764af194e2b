//! Open loops: requests arrive at a rate, whether the server keeps up or not.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    arrivals::poisson,
    bench::{Bench, BenchArgs},
    load::{Load, LoadArgs},
    modes::Mode,
    options::positive,
    progress::Progress,
    report::{Chart, Findings, Section},
    stats::Point,
};

/// Clients of the warm-up.
const WARM_UP_CLIENTS: usize = 4;

/// Options of `kimi-bench serve`.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct Serve {
    /// Requests per second on average, one measurement for each number
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8", value_parser = positive)]
    rate: Vec<f64>,
    /// Seconds in which requests arrive; a measurement ends when they are answered
    #[arg(long, default_value_t = 60.0, value_parser = positive)]
    duration: f64,
    #[command(flatten)]
    #[serde(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    #[serde(flatten)]
    bench: BenchArgs,
}

impl Mode for Serve {
    fn name(&self) -> &'static str {
        "serve"
    }

    fn bench(&self) -> &BenchArgs {
        &self.bench
    }

    async fn run(&self, bench: &Bench) -> Result<Findings> {
        let load = self.load.load();
        let mut points = Vec::new();
        for &rate in &self.rate {
            points.push(self.measure(bench, &load, rate).await?);
        }
        let mut findings = Findings::default();
        if !load.shares_prefixes() {
            findings.expect_misses(points.iter());
        }
        let title = "Open loop: Poisson arrivals".to_owned();
        findings.sections.push(Section {
            title,
            axis: "requests/s offered".into(),
            numeric: true,
            charts: Chart::ALL.to_vec(),
            points,
        });
        findings.expect_punctuality();
        Ok(findings)
    }
}

impl Serve {
    async fn measure(&self, bench: &Bench, load: &Load, rate: f64) -> Result<Point> {
        bench.warm_up(load, WARM_UP_CLIENTS).await?;
        // Conversations of several turns begin more seldom, so that the requests have the rate.
        let begins = rate / load.turns as f64;
        let arrivals = poisson(begins, Duration::from_secs_f64(self.duration), bench.template.seed);
        let conversations = bench.conversations(load, arrivals.len());
        let name = format!("{rate} req/s");
        let driver = bench.driver();
        let _progress = Progress::start(&driver.live, &name, Some(arrivals.len() * load.turns));
        let outcome = driver.open_loop(arrivals.into_iter().zip(conversations).collect()).await?;
        Ok(Point::new(&name, rate, &outcome, bench.slo))
    }
}
