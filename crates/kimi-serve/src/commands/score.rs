//! `kimi-serve score`: log probabilities of given tokens, for perplexity and for comparing engines.

use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result, ensure};
use kimi_k2::{Activations, Checkpoint, KimiModel, ModelOptions};

use crate::{
    args::{Arithmetic, ScoreArgs},
    load,
    progress::Progress,
};

pub(crate) fn run(args: &ScoreArgs) -> Result<()> {
    let path = args.token_ids.display();
    let json = std::fs::read(&args.token_ids).with_context(|| format!("cannot read {path}"))?;
    let tokens: Vec<u32> = serde_json::from_slice(&json)
        .with_context(|| format!("{path} must hold a JSON array of token ids"))?;
    ensure!(!tokens.is_empty(), "{path} holds no token ids");

    let mut progress = Progress::start("loading");
    let (_, files) = load::resolve(&args.model, |phase, done, total| {
        progress.part(phase);
        progress.set(done, total);
    })?;
    let checkpoint = Checkpoint::open(files)?;
    let mut model = KimiModel::load(&checkpoint, &mut |done, total| progress.set(done, total))?;
    if args.dtype == Arithmetic::DenseInt8 {
        model.dense_to_int8(&mut |done, total| progress.set(done, total))?;
    }
    drop(progress);
    let activations = match args.dtype {
        Arithmetic::F32 => Activations::F32,
        Arithmetic::Rounded | Arithmetic::DenseInt8 => Activations::Rounded,
    };
    let model = model.with_options(ModelOptions { activations, ..ModelOptions::default() });

    let mut stdout = BufWriter::new(io::stdout().lock());
    for position in kimi_runner::score(&model, &tokens, args.top)? {
        serde_json::to_writer(&mut stdout, &position?)?;
        stdout.write_all(b"\n")?;
    }
    stdout.flush()?;
    Ok(())
}
