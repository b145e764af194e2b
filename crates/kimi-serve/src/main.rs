#![doc = include_str!("../README.md")]

mod answer;
mod args;
mod commands;
mod config;
mod fake;
mod load;
mod nano;
mod progress;

use std::{io::Write, process::ExitCode};

use clap::Parser;

use crate::args::{Cli, Command};

/// A step allocates the same sizes over and over, on every thread. glibc's allocator gives such memory back to the system in between,
/// whose pages are then cleared anew: with 64 streams of a small model it takes a sixth longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => commands::serve::run(args),
        Command::Chat(args) => commands::chat::run(&args),
        Command::Generate(args) => commands::generate::run(args),
        Command::Score(args) => commands::score::run(&args),
        Command::Tokenize(args) => commands::tokenize::run(args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Pull(args) => commands::pull::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough (`| head`) is not a failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, causes included; nothing can be done when standard error is gone.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
