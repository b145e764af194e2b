//! One rank: the model, its cache and its samplers, all owned by the thread that made them.

use std::{collections::HashMap, sync::Arc};

use kimi_engine::{NewSequence, RunnerError, StepBatch, StepOutput};
use kimi_k2::{Checkpoint, KimiModel, KvPool, ModelError};
use kimi_scheduler::SequenceId;
use tracing::info;

use crate::{KvSizing, RunnerConfig, SequenceSampler, StartError, available_memory, gather::gather};

/// What runs steps. Between steps it keeps the cache and, for each live sequence, the sampler's state; tokens and
/// block tables arrive with every plan.
pub(crate) struct Rank {
    model: KimiModel,
    kv: KvPool,
    samplers: HashMap<SequenceId, SequenceSampler>,
}

impl Rank {
    /// Loads the model, then gives the cache what memory is left. `progress` hears `(bytes done, bytes in all)`.
    pub(crate) fn load(
        config: RunnerConfig,
        checkpoint: &Checkpoint,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, StartError> {
        let model = KimiModel::load(checkpoint, progress)?;
        let RunnerConfig { block_size, max_context, max_sequences, kv_memory, cache_dtype } = config;
        let bytes_per_block = (KvPool::bytes_per_token(model.config(), cache_dtype) * block_size) as u64;
        let sizing = KvSizing { memory: kv_memory, bytes_per_block, block_size, max_context, max_sequences };
        let block_count = sizing.block_count(available_memory())?;
        let kv = KvPool::new(model.config(), block_count, block_size, cache_dtype)?;
        info!(block_count, block_size, cache_bytes = block_count as u64 * bytes_per_block, "model loaded");
        Ok(Self { model, kv, samplers: HashMap::new() })
    }

    /// Blocks of the cache.
    pub(crate) fn block_count(&self) -> usize {
        self.kv.block_count()
    }

    /// Runs one step: gather, compute, sample.
    pub(crate) fn step(&mut self, step: &StepBatch) -> Result<StepOutput, RunnerError> {
        self.update_samplers(&step.plan.retired, &step.new_sequences)?;
        let batch = gather(&step.plan);
        let mut logits = self.forward(&batch).map_err(|error| RunnerError(error.to_string()))?;
        let mut rows = logits.chunks_exact_mut(self.model.config().vocab_size);
        let mut sampled = Vec::with_capacity(batch.sample_rows.len());
        for entry in step.plan.entries.iter().filter(|entry| entry.samples) {
            let id = entry.sequence;
            let sampler = self.samplers.get_mut(&id).ok_or_else(|| unknown(id))?;
            let own = rows.by_ref().take(entry.draft + 1);
            sampled.extend(
                sampler.sample_draft(own, entry.draft_tokens()).into_iter().map(|result| (id, result)),
            );
        }
        Ok(StepOutput { sampled, ..StepOutput::default() })
    }

    /// Forgets sequences that ended and meets new ones.
    fn update_samplers(&mut self, retired: &[SequenceId], new: &[NewSequence]) -> Result<(), RunnerError> {
        for id in retired {
            self.samplers.remove(id);
        }
        for sequence in new {
            if self.samplers.insert(sequence.id, SequenceSampler::new(sequence)).is_some() {
                return Err(RunnerError(format!("sequence {} was announced twice", sequence.id.0)));
            }
        }
        Ok(())
    }

    /// Logits of the batch's sample rows, one after another, on the host.
    fn forward(&mut self, batch: &kimi_k2::Batch) -> Result<Vec<f32>, ModelError> {
        let logits = self.model.forward(batch, &mut self.kv)?; // [sample_rows, vocabulary]
        Ok(logits.flatten_all()?.to_vec1()?)
    }
}

fn unknown(id: SequenceId) -> RunnerError {
    RunnerError(format!("sequence {} is in a plan but was never announced", id.0))
}

/// A step function for a rank thread, and how many cache blocks it has.
pub(crate) type Ready<S> = (S, usize);

/// Loads a rank and turns it into its step function; runs inside the rank thread.
pub(crate) fn start(
    config: RunnerConfig,
    checkpoint: Arc<Checkpoint>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Ready<impl FnMut(&StepBatch) -> Result<StepOutput, RunnerError>>, StartError> {
    let mut rank = Rank::load(config, &checkpoint, &mut progress)?;
    // The model holds the mapped weights it needs; the checkpoint's index is not needed any more.
    drop(checkpoint);
    let block_count = rank.block_count();
    Ok((move |step: &StepBatch| rank.step(step), block_count))
}
