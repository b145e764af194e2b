//! From the logits of a step to the tokens of all its sequences.

use std::collections::HashMap;

use kimi_engine::{EngineFailure, RunnerError, SampledToken, StepOutput, TokenLogprobs};
use kimi_k2::for_each_item;
use kimi_scheduler::{PlanEntry, SequenceId};

use crate::SequenceSampler;

/// What sampling reads and writes of each logit, in multiply-adds: a maximum, an exponential, sums.
const WORK: usize = 16;

/// An entry of the plan with its logits, and what becomes of them.
struct Job<'a> {
    entry: &'a PlanEntry,
    sampler: &'a mut SequenceSampler,
    /// `[scores, vocabulary]`, then `[draft + 1, vocabulary]` if it samples.
    logits: &'a mut [f32],
    scored: Option<Result<Vec<TokenLogprobs>, EngineFailure>>,
    sampled: Vec<Result<SampledToken, EngineFailure>>,
}

/// What the plan's entries score and sample from `logits`, `[sample_rows, vocabulary]`, in the plan's order, which are used as
/// scratch space. Sequences do not depend on each other, so threads share them.
///
/// # Errors
/// When an entry's sequence has no sampler.
pub(crate) fn sample_step(
    entries: &[PlanEntry],
    samplers: &mut HashMap<SequenceId, SequenceSampler>,
    logits: &mut [f32],
    vocabulary: usize,
) -> Result<StepOutput, RunnerError> {
    let work = logits.len() * WORK;
    let mut samplers: HashMap<_, _> = samplers.iter_mut().collect();
    let mut rest = logits;
    let mut jobs = Vec::with_capacity(entries.len());
    for entry in entries {
        let sampler = samplers.remove(&entry.sequence).ok_or_else(|| unknown(entry.sequence))?;
        let rows = entry.scores.len() + if entry.samples { entry.draft + 1 } else { 0 };
        let (logits, others) = std::mem::take(&mut rest).split_at_mut(rows * vocabulary);
        rest = others;
        jobs.push(Job { entry, sampler, logits, scored: None, sampled: Vec::new() });
    }
    for_each_item(&mut jobs, work, |job| job.run(vocabulary));
    let mut output = StepOutput::default();
    for Job { entry, scored, sampled, .. } in jobs {
        output.scored.extend(scored.map(|scored| (entry.sequence, scored)));
        output.sampled.extend(sampled.into_iter().map(|sampled| (entry.sequence, sampled)));
    }
    Ok(output)
}

impl Job<'_> {
    fn run(&mut self, vocabulary: usize) {
        let (scores, samples) = self.logits.split_at_mut(self.entry.scores.len() * vocabulary);
        if !scores.is_empty() {
            let first = self.entry.start + self.entry.scores.start;
            self.scored = Some(self.sampler.score_prompt(scores.chunks_exact_mut(vocabulary), first));
        }
        if self.entry.samples {
            let rows = samples.chunks_exact_mut(vocabulary);
            self.sampled = self.sampler.sample_draft(rows, self.entry.draft_tokens());
        }
    }
}

fn unknown(id: SequenceId) -> RunnerError {
    RunnerError(format!("sequence {} is in a plan but was never announced", id.0))
}
