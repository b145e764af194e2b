#![doc = include_str!("../README.md")]

mod answer;
mod arrivals;
mod bench;
mod client;
mod compare;
mod drive;
mod engine;
mod kernels;
mod lengths;
mod load;
mod memory;
mod modes;
mod options;
mod page;
mod progress;
mod report;
mod request;
mod stats;
mod table;
mod text;

use std::{
    io::{Write as _, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{
    bench::Bench,
    compare::Compare,
    engine::Engine,
    kernels::Kernels,
    modes::{
        Mode, interference::Interference, latency::Latency, prefix::Prefix, serve::Serve,
        throughput::Throughput,
    },
    report::{OutputArgs, Report, now},
};

/// Measures any OpenAI-compatible server as a client sees it.
#[derive(Debug, Parser)]
#[command(name = "kimi-bench", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One client alone, over prompt and output lengths
    Latency(Latency),
    /// Closed loop: as much as so many clients can get
    Throughput(Throughput),
    /// Open loop: Poisson arrivals at given rates
    Serve(Serve),
    /// The first token of a known prefix against an unknown one, and of conversations
    Prefix(Prefix),
    /// Whether streams stutter while a long prompt is computed
    Interference(Interference),
    /// The model without a server: prompts and generation, and how close they come to what memory gives
    Engine(Engine),
    /// The ops without a model, at K2.6's sizes, against memory and multipliers
    Kernels(Kernels),
    /// Two result files side by side
    Compare(Compare),
    /// A result file as a table and a page
    Report(Show),
}

/// Options of `kimi-bench report`.
#[derive(Debug, clap::Args)]
struct Show {
    /// Results that `--json` kept
    file: PathBuf,
    /// Write the page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The server's, so that `engine` measures what it has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            // Nobody is left to hear that standard error is closed.
            let _ = writeln!(stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Latency(mode) => measure(mode).await,
        Command::Throughput(mode) => measure(mode).await,
        Command::Serve(mode) => measure(mode).await,
        Command::Prefix(mode) => measure(mode).await,
        Command::Interference(mode) => measure(mode).await,
        Command::Engine(engine) => {
            print(&engine.run()?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Kernels(kernels) => {
            print(&kernels.run()?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Compare(compare) => {
            print(&compare.run()?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Report(show) => {
            let report = Report::read(&show.file)?;
            report.write(&OutputArgs { json: None, html: show.html.clone() })?;
            print(&report.text())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs a mode against its server, and fails when a request failed.
async fn measure(mode: &impl Mode) -> Result<ExitCode> {
    let args = mode.bench();
    let bench = Bench::connect(args).await?;
    let mut findings = mode.run(&bench).await?;
    findings.expect_pieces();
    let model = &bench.template.model;
    let report = Report {
        tool: concat!("kimi-bench ", env!("CARGO_PKG_VERSION")).to_owned(),
        mode: mode.name().to_owned(),
        label: args.label.clone().unwrap_or_else(|| model.clone()),
        created: now(),
        base_url: args.base_url.clone(),
        model: model.clone(),
        settings: serde_json::to_value(mode)?,
        tokens: bench.tokens,
        sections: findings.sections,
        ratios: findings.ratios,
        warnings: findings.warnings,
    };
    print(&report.text())?;
    report.write(&args.output)?;
    Ok(if report.has_failures() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(text: &str) -> Result<()> {
    Ok(writeln!(stdout(), "{text}")?)
}
