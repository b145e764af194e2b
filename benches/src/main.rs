#![doc = include_str!("../README.md")]

mod client;
mod closed_loop;
mod report;
mod workload;

use std::{
    io::{Write as _, stderr, stdout},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::{client::Client, closed_loop::Level, report::Report, workload::Workload};

/// Measures an OpenAI-compatible server: time to first token, time between tokens, throughput.
#[derive(Debug, Parser)]
#[command(name = "kimi-bench", version)]
struct Args {
    /// Where the API is, `/v1` included.
    #[arg(long, default_value = "http://127.0.0.1:8000/v1")]
    base_url: String,
    /// The model to ask; the server's first one if not given.
    #[arg(long)]
    model: Option<String>,
    /// Sent as a bearer token.
    #[arg(long, env = "KIMI_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Clients that wait for their answer and ask again, one measurement for each number.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
    concurrency: Vec<usize>,
    /// Requests of each measurement.
    #[arg(long, default_value_t = 32)]
    requests: usize,
    /// Words of each prompt, which are about as many tokens.
    #[arg(long, default_value_t = 128)]
    prompt_tokens: usize,
    /// The most tokens of each answer, reasoning included.
    #[arg(long, default_value_t = 64)]
    max_tokens: usize,
    /// Decides the prompts and the sampling; the same seed asks the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Sampling temperature; 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Seconds after which a measurement ends, finished or not.
    #[arg(long, default_value_t = 300)]
    time_limit: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    ensure!(!args.concurrency.contains(&0), "--concurrency 0 asks nothing; give numbers from 1 on");
    let client = Client::new(&args.base_url, args.api_key.as_deref())?;
    let model = match args.model {
        Some(model) => model,
        None => {
            client.first_model().await.context("cannot find out which model the server has; give --model")?
        }
    };
    let workload = Workload {
        model,
        prompt_words: args.prompt_tokens,
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        seed: args.seed,
    };
    let mut report = Report::new(&args.base_url, &workload);
    for (index, &concurrency) in args.concurrency.iter().enumerate() {
        writeln!(stderr(), "{} requests, {concurrency} at a time", args.requests)?;
        // Other prompts in every measurement, or a prefix cache would answer for the model.
        let level = Level {
            concurrency,
            requests: args.requests,
            first_request: index * args.requests,
            time_limit: Duration::from_secs(args.time_limit),
        };
        report.add(concurrency, &level.run(&client, &workload).await);
    }
    let text = if args.json { serde_json::to_string_pretty(&report)? } else { report.table() };
    writeln!(stdout(), "{text}")?;
    Ok(if report.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
