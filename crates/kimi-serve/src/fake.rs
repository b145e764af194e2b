//! `serve --fake`: everything is real but the model, which says what a script tells it to.

mod player;
mod script;

use std::{fs, sync::Arc};

use anyhow::{Context, Result};
use kimi_chat::Markers;
use kimi_engine::{EngineConfig, FakeRunner, SchedulerConfig};

use self::{player::Player, script::Script};
use crate::{
    args::{EngineArgs, ModelArgs},
    load::{self, BLOCK_SIZE, Loaded},
};

/// The name under which scripted answers are served.
const NAME: &str = "kimi-fake";

/// As long as the hosted service's, since agents send long prompts.
const CONTEXT: usize = 262_144;

/// Starts an engine that says what `source` tells: a script's path, or `hash`. Only the vocabulary of `model` is read.
pub(crate) fn load(model: &ModelArgs, engine: &EngineArgs, source: &str) -> Result<Loaded> {
    let script = match source {
        "hash" => Script::hash(),
        path => read(path).with_context(|| format!("cannot play the script {path}"))?,
    };
    let (_, files) = load::resolve(model, |_, _, _| {})?;
    let vocabulary = Arc::new(load::vocabulary(&files)?);
    let markers = Markers::resolve(&vocabulary)?;
    let mut player = Player::new(script, Arc::clone(&vocabulary), markers);
    let runner = FakeRunner::playing(move |new| player.answer(new));
    let (engine, thread) = kimi_engine::start(config(engine), Box::new(runner));
    tracing::warn!(script = source, "no model is loaded: answers are scripted");
    Ok(Loaded { name: NAME.to_owned(), engine, thread, vocabulary, markers, vision: true })
}

fn read(path: &str) -> Result<Script> {
    Script::parse(&fs::read_to_string(path)?)
}

/// Blocks are only numbers here: enough for some of the longest conversations beside many short ones.
fn config(args: &EngineArgs) -> EngineConfig {
    let max_context = args.max_context.map_or(CONTEXT, std::num::NonZeroUsize::get);
    let max_sequences = args.max_sequences.get();
    let blocks = |tokens: usize| tokens.div_ceil(BLOCK_SIZE);
    let scheduler = SchedulerConfig {
        block_size: BLOCK_SIZE,
        block_count: 4 * blocks(max_context) + max_sequences * blocks(4096),
        max_batch_tokens: args.max_batch_tokens.get(),
        max_sequences,
        max_context,
        speculation: load::speculation(args),
    };
    EngineConfig { scheduler, max_waiting: args.queue }
}
