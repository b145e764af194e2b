//! One rank: the model, its cache and its samplers, all owned by the thread that made them.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use kimi_engine::{NewSequence, RunnerError, StepBatch, StepOutput};
use kimi_k2::{
    Batch, Checkpoint, Collective, KeptTensor, KimiModel, KvPool, ModelError, ModelOptions, OwnThreads, Solo,
    thread_count,
};
use kimi_scheduler::{SequenceId, StepPlan, TierContents, TierReport};
use sha2::{Digest, Sha256};

use crate::{
    KvSizing, MemoryTable, RunnerConfig, SequenceSampler, StartError, available_memory,
    collective_threads::ThreadCollective, disk_tier::DiskTier, gather::gather, live_media::LiveMedia, memory,
    numa::stay_near, sample_step::sample_step,
};

/// What runs steps. Between steps it keeps the cache and, for each live sequence, the sampler's state and what it
/// sees; tokens and block tables arrive with every plan.
pub(crate) struct Rank {
    model: KimiModel,
    kv: KvPool,
    /// Of the first rank only: the others get no logits.
    samplers: Option<HashMap<SequenceId, SequenceSampler>>,
    media: LiveMedia,
    disk: Option<DiskTier>,
    /// Who computes, unless everyone's threads do.
    _threads: Option<OwnThreads>,
}

impl Rank {
    /// Loads the model, or a rank's part of it, then gives the cache what memory is left. `progress` hears `(bytes done, bytes in
    /// all)`.
    pub(crate) fn load(
        config: RunnerConfig,
        checkpoint: &Checkpoint,
        place: Option<ThreadCollective>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Self, RankFacts), StartError> {
        let options = ModelOptions { activations: config.activations, ..ModelOptions::default() };
        let ranks = config.ranks.get();
        let threads = place.as_ref().map(|place| {
            stay_near(place.rank(), ranks);
            OwnThreads::start(thread_count() / ranks)
        });
        let collective: Rc<dyn Collective> =
            place.map_or_else(|| Rc::new(Solo) as _, |place| Rc::new(place) as _);
        let samplers = (collective.rank() == 0).then(HashMap::new);
        let mut model = KimiModel::load_rank(checkpoint, collective, progress)?.with_options(options);
        let int8 = if config.dense_int8 { model.dense_to_int8(progress)? } else { 0 };
        let RunnerConfig { block_size, max_context, max_sequences, kv_memory, cache_dtype, .. } = config;
        let bytes_per_block = (KvPool::bytes_per_token(model.config(), cache_dtype) * block_size) as u64;
        let step = memory::step_bytes(model.config(), config.max_batch_tokens, max_sequences);
        let vision = memory::VisionBytes::new(model.config());
        let available = available_memory() / ranks as u64;
        let (weights, memory) = (checkpoint.total_bytes() / ranks as u64, kv_memory);
        let sizing = KvSizing { memory, weights, bytes_per_block, block_size, max_context, max_sequences };
        let block_count = sizing.block_count(available.saturating_sub(step + vision.total()))?;
        let kv = KvPool::new(model.config(), block_count, block_size, cache_dtype)?;
        kv.provide_memory();
        let disk = config.disk.as_ref().map(|disk| {
            let identity = cache_identity(checkpoint, &config)?;
            Ok::<_, StartError>(DiskTier::open(disk, identity, kv.bytes_per_block())?)
        });
        let (disk, tier) = disk.transpose()?.unzip();
        let memory = MemoryTable {
            ranks,
            weights: checkpoint.total_bytes(),
            int8,
            step,
            vision,
            available,
            block_count,
            block_size,
            bytes_per_block,
            cache_dtype,
            max_context,
            disk: config.disk.zip(tier.clone()),
        };
        let takes_media = model.takes_media();
        let facts = RankFacts { block_count, tier, takes_media, memory: memory.to_string() };
        let media = LiveMedia::new(vision.features);
        Ok((Self { model, kv, samplers, media, disk, _threads: threads }, facts))
    }

    /// Runs one step: move blocks, gather, look at images, compute, sample.
    pub(crate) fn step(&mut self, step: &StepBatch) -> Result<StepOutput, RunnerError> {
        self.update_sequences(&step.plan.retired, &step.new_sequences)?;
        let tier = match &mut self.disk {
            Some(disk) => disk.work(&step.plan, &mut self.kv)?,
            None => TierReport::default(),
        };
        if step.plan.entries.is_empty() {
            return Ok(StepOutput { tier, ..StepOutput::default() });
        }
        let failed = |error: ModelError| RunnerError(error.to_string());
        let logits = self.forward(&step.plan).map_err(failed)?; // [sample_rows, vocabulary]
        let Some(samplers) = &mut self.samplers else { return Ok(StepOutput::default()) };
        let vocabulary = self.model.config().vocab_size;
        let output = logits
            .with_numbers(|logits| sample_step(&step.plan.entries, samplers, logits, vocabulary))
            .map_err(|error| failed(error.into()))??;
        Ok(StepOutput { tier, ..output })
    }

    /// Forgets sequences that ended and meets new ones.
    fn update_sequences(&mut self, retired: &[SequenceId], new: &[NewSequence]) -> Result<(), RunnerError> {
        for id in retired {
            self.media.forget(*id);
        }
        for sequence in new {
            self.media.meet(sequence);
        }
        let Some(samplers) = &mut self.samplers else { return Ok(()) };
        for id in retired {
            samplers.remove(id);
        }
        for sequence in new {
            if samplers.insert(sequence.id, SequenceSampler::new(sequence)).is_some() {
                return Err(RunnerError(format!("sequence {} was announced twice", sequence.id.0)));
            }
        }
        Ok(())
    }

    /// Logits of the plan's sample rows, f32 `[sample_rows, vocabulary]`.
    fn forward(&mut self, plan: &StepPlan) -> Result<KeptTensor, ModelError> {
        let features = self.media.rows(&self.model, plan)?;
        let batch = Batch { features, ..gather(plan) };
        self.model.forward(&batch, &mut self.kv)
    }
}

/// Changes whenever a block means something else: another checkpoint, another format, other arithmetic.
fn cache_identity(checkpoint: &Checkpoint, config: &RunnerConfig) -> Result<[u8; 32], ModelError> {
    let mut hash = Sha256::new_with_prefix(checkpoint.identity()?);
    let (dtype, activations, block_size) = (config.cache_dtype.name(), config.activations, config.block_size);
    let int8 = config.dense_int8;
    hash.update(format!("{dtype} {activations:?} {int8} {block_size} {}", env!("CARGO_PKG_VERSION")));
    Ok(hash.finalize().into())
}

/// What others must know of a rank.
#[derive(Clone, Debug, Default)]
pub(crate) struct RankFacts {
    /// Blocks of the cache.
    pub(crate) block_count: usize,
    /// What the second tier holds, if there is one.
    pub(crate) tier: Option<TierContents>,
    /// Whether it looks at images and clips.
    pub(crate) takes_media: bool,
    /// Where the memory goes, as a table.
    pub(crate) memory: String,
}

/// A step function for a rank thread, and what others must know of the rank.
pub(crate) type Ready<S> = (S, RankFacts);

/// Loads a rank and turns it into its step function; runs inside the rank thread. With one rank there is no `place`.
pub(crate) fn start(
    config: RunnerConfig,
    checkpoint: Arc<Checkpoint>,
    place: Option<ThreadCollective>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Ready<impl FnMut(&StepBatch) -> Result<StepOutput, RunnerError>>, StartError> {
    let (mut rank, facts) = Rank::load(config, &checkpoint, place, &mut progress)?;
    // The model holds the mapped weights it needs; the checkpoint's index is not needed any more.
    drop(checkpoint);
    Ok((move |step: &StepBatch| rank.step(step), facts))
}
