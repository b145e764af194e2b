//! `kimi-serve pull`: a repository into the Hugging Face cache.

use std::io::{self, Write};

use anyhow::Result;
use kimi_k2::Hub;

use crate::{args::PullArgs, config, progress::Progress};

pub(crate) fn run(args: &PullArgs) -> Result<()> {
    let mut progress = Progress::start(&args.repository);
    let directory = Hub::new(config::hub(false)).pull(&args.repository, &args.revision, &mut |state| {
        progress.part(state.file);
        progress.set(state.all_done, state.all_total);
    })?;
    drop(progress);
    writeln!(io::stdout(), "{}", directory.display())?;
    Ok(())
}
