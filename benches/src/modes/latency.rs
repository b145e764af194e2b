//! One client alone: how long prompts and answers take when nothing waits.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    bench::{Bench, BenchArgs},
    load::Load,
    modes::Mode,
    report::{Chart, Findings, Section},
    stats::Point,
};

/// Options of `kimi-bench latency`.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct Latency {
    /// Tokens of the prompts, one measurement for each number
    #[arg(long, value_delimiter = ',', default_value = "32,256,1024,4096")]
    prompt_tokens: Vec<usize>,
    /// The most tokens of the answers, one series for each number
    #[arg(long, visible_alias = "max-tokens", value_delimiter = ',', default_value = "64")]
    output_tokens: Vec<usize>,
    /// Requests of each measurement
    #[arg(long, default_value_t = 16)]
    requests: usize,
    #[command(flatten)]
    #[serde(flatten)]
    bench: BenchArgs,
}

impl Mode for Latency {
    fn name(&self) -> &'static str {
        "latency"
    }

    fn bench(&self) -> &BenchArgs {
        &self.bench
    }

    async fn run(&self, bench: &Bench) -> Result<Findings> {
        let mut findings = Findings::default();
        for &output in &self.output_tokens {
            let mut points = Vec::new();
            for &prompt in &self.prompt_tokens {
                let name = format!("{prompt} tokens");
                let load = Load::fixed(prompt, output);
                let outcome =
                    bench.closed(&format!("{prompt} in, {output} out"), &load, 1, self.requests).await?;
                points.push(Point::new(&name, prompt as f64, &outcome, bench.slo));
            }
            let title = format!("One client, answers of {output} tokens");
            findings.sections.push(Section {
                title,
                axis: "prompt".into(),
                numeric: true,
                charts: Chart::ALL.to_vec(),
                points,
            });
        }
        let points: Vec<Point> =
            findings.sections.iter().flat_map(|section| section.points.clone()).collect();
        findings.expect_misses(points.iter());
        Ok(findings)
    }
}
