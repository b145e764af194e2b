//! From the name of a model to a running engine: resolve, open, load, start.

use std::{
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use kimi_api::{ChatMessage, Role};
use kimi_chat::{Conversation, Markers, Vocabulary};
use kimi_engine::{EngineConfig, EngineHandle, EngineThread, SchedulerConfig, Speculation};
use kimi_k2::{Checkpoint, CheckpointFiles, Hub, ModelConfig};
use kimi_runner::{Activations, DiskTierConfig, KvMemory, RankGroup, RunnerConfig, UNIFORM_ROWS};
use tokio::runtime::Runtime;
use tracing::{info, warn};

use crate::{
    args::{AnswerArgs, Dense, EngineArgs, ModelArgs, Switch},
    config, nano,
    progress::Progress,
};

/// Positions in one cache block.
pub(crate) const BLOCK_SIZE: usize = 16;

/// Drafts are short enough for a step whose numbers, to the last bit, are those of steps without drafts.
const SPECULATION: Speculation = Speculation { max_draft: 8, max_rows: UNIFORM_ROWS, eager: false };

/// A model that answers.
pub(crate) struct Loaded {
    /// The checkpoint's own name.
    pub(crate) name: String,
    pub(crate) engine: EngineHandle,
    pub(crate) thread: EngineThread,
    pub(crate) vocabulary: Arc<Vocabulary>,
    pub(crate) markers: Markers,
    /// Whether it sees images and videos.
    pub(crate) vision: bool,
}

/// A model that answers in the terminal, with the runtime its answers are awaited on.
pub(crate) struct Terminal {
    pub(crate) loaded: Loaded,
    pub(crate) runtime: Runtime,
}

/// Finds the checkpoint: built in, a directory, or a repository (fetched when it is not in the cache).
/// `report` hears `(what, bytes done, bytes in all)`.
pub(crate) fn resolve(
    args: &ModelArgs,
    mut report: impl FnMut(&str, u64, u64),
) -> Result<(String, CheckpointFiles)> {
    let Some(model) = &args.model else {
        return Ok((nano::NAME.to_owned(), CheckpointFiles::Embedded(nano::FILES)));
    };
    let path = Path::new(model);
    if path.is_dir() {
        let name =
            path.canonicalize()?.file_name().map_or(model.clone(), |name| name.to_string_lossy().into());
        return Ok((name, CheckpointFiles::Directory(path.to_owned())));
    }
    if !is_repository_id(model) {
        bail!("{model} is neither a directory nor a repository id of the form ORG/NAME");
    }
    let hub = Hub::new(config::hub(args.offline));
    let directory = hub.fetch(model, &args.revision, &mut |state| {
        report(&format!("fetching {}", state.file), state.all_done, state.all_total);
    })?;
    Ok((model.clone(), CheckpointFiles::Directory(directory)))
}

/// `ORG/NAME`, as Hugging Face allows it.
fn is_repository_id(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    text.split_once('/').is_some_and(|(organisation, name)| plain(organisation) && plain(name))
}

/// Reads the vocabulary of a checkpoint, in whichever form it has one.
pub(crate) fn vocabulary(files: &CheckpointFiles) -> Result<Vocabulary> {
    const CONFIG: &str = "tokenizer_config.json";
    if files.exists("tiktoken.model") {
        return Ok(Vocabulary::from_tiktoken(&files.read("tiktoken.model")?, &files.read(CONFIG)?)?);
    }
    if files.exists("tokenizer.json") {
        let config = if files.exists(CONFIG) { Some(files.read(CONFIG)?) } else { None };
        return Ok(Vocabulary::from_tokenizer_json(&files.read("tokenizer.json")?, config.as_deref())?);
    }
    bail!(
        "the checkpoint has no tokenizer: expected tiktoken.model with tokenizer_config.json, or tokenizer.json"
    )
}

/// Loads the model and starts the engine. `report` hears `(phase, bytes done, bytes in all)`.
pub(crate) fn load(
    model: &ModelArgs,
    engine: &EngineArgs,
    disk: Option<DiskTierConfig>,
    report: impl Fn(&str, u64, u64) + Send + Sync + 'static,
) -> Result<Loaded> {
    if let Some(threads) = engine.threads {
        kimi_k2::use_threads(threads.get());
    }
    if engine.dense == Dense::Int8 && !kimi_k2::multiplies_bytes() {
        warn!(
            "--dense int8 gains nothing on this CPU, which has no dot products of bytes (AVX2, AVX-512 VNNI, ARM's dotprod): leave it out"
        );
    }
    let (name, files) = resolve(model, &report)?;
    let vocabulary = Arc::new(vocabulary(&files)?);
    let markers = Markers::resolve(&vocabulary)?;
    let checkpoint = Arc::new(Checkpoint::open(files)?);
    if engine.prefetch || engine.mlock {
        checkpoint.prefetch(&mut |done, total| report("reading weights", done, total));
    }
    if engine.mlock {
        checkpoint.lock()?;
    }
    let model_config = checkpoint.config();
    ensure!(
        vocabulary.len() <= model_config.vocab_size,
        "the tokenizer has {} tokens, but the model has embeddings for {}; the two files do not belong together",
        vocabulary.len(),
        model_config.vocab_size
    );
    let vision = model_config.vision.is_some();
    let max_context = context(engine, model_config)?;
    let phase = format!("loading {name}");
    let max_sequences = engine.max_sequences.get();
    let runner = RankGroup::start(
        &RunnerConfig {
            block_size: BLOCK_SIZE,
            max_context,
            max_sequences,
            kv_memory: engine.kv_memory.map_or(KvMemory::Share(0.5), KvMemory::Bytes),
            max_batch_tokens: engine.max_batch_tokens.get(),
            cache_dtype: config::cache_dtype(engine.kv_dtype),
            disk,
            activations: if engine.exact { Activations::F32 } else { Activations::Rounded },
            ranks: engine.tensor_parallel,
            dense_int8: engine.dense == Dense::Int8,
        },
        &checkpoint,
        move |done, total| report(&phase, done, total),
    )?
    .with_step_timeout(Duration::from_secs(engine.step_timeout.get()));
    info!("memory\n{}", runner.memory_table());
    let scheduler = SchedulerConfig {
        block_size: BLOCK_SIZE,
        block_count: runner.block_count(),
        max_batch_tokens: engine.max_batch_tokens.get(),
        max_sequences,
        max_context,
        speculation: speculation(engine),
    };
    let config = EngineConfig { scheduler, max_waiting: engine.queue };
    let (engine, thread) = kimi_engine::start(config, Box::new(runner));
    Ok(Loaded { name, engine, thread, vocabulary, markers, vision })
}

/// Whether and when tokens are computed that may turn out wrong.
pub(crate) fn speculation(engine: &EngineArgs) -> Option<Speculation> {
    (engine.speculation == Switch::On).then_some(SPECULATION)
}

/// The longest conversation: what the model was validated for, unless more is asked for by name; never more than it has
/// positions for. A model answers beyond what was validated, too, but with garbage, and nothing in the answer tells.
fn context(engine: &EngineArgs, model: &ModelConfig) -> Result<usize> {
    let (validated, positions) = (model.validated_context, model.max_position_embeddings);
    let asked = engine.max_context.map_or(validated, NonZeroUsize::get);
    ensure!(
        asked <= positions,
        "--max-context {asked} is more than the {positions} tokens the checkpoint was made for"
    );
    if asked > validated {
        warn!(
            "--max-context {asked} is more than the {validated} tokens this checkpoint was validated for (max_length in \
             generation_config.json): expect wrong answers in longer conversations"
        );
    } else if validated < positions {
        info!(
            "conversations may have {asked} tokens; up to {positions} are computed with --max-context, and the \
             checkpoint was validated for {validated}"
        );
    }
    Ok(asked)
}

/// Loads with progress on standard error.
pub(crate) fn for_terminal(model: &ModelArgs, engine: &EngineArgs) -> Result<Terminal> {
    let progress = Mutex::new(Progress::start("loading"));
    let loaded = load(model, engine, None, move |phase, done, total| {
        if let Ok(mut progress) = progress.lock() {
            progress.part(phase);
            progress.set(done, total);
        }
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    Ok(Terminal { loaded, runtime })
}

/// An empty conversation with what the arguments say of it.
pub(crate) fn conversation(args: &AnswerArgs) -> Conversation {
    let system = args.system.iter().map(|text| ChatMessage::text(Role::System, text));
    Conversation {
        messages: system.collect(),
        tools: Vec::new(),
        thinking: !args.no_thinking,
        preserve_thinking: false,
        add_generation_prompt: true,
    }
}
