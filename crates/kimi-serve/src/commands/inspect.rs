//! `kimi-serve inspect`: what a checkpoint is and what memory it needs here.

use std::io::{self, Write};

use anyhow::Result;
use kimi_k2::Checkpoint;

use crate::{args::InspectArgs, load};

pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let (name, files) = load::resolve(&args.model, |_, _, _| {})?;
    let checkpoint = Checkpoint::open(files)?;
    let inspection = kimi_k2::inspect(&checkpoint);
    let mut stdout = io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string_pretty(&inspection)?)?;
    } else {
        writeln!(stdout, "{name}\n{inspection}")?;
    }
    Ok(())
}
