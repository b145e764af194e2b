//! Images and clips of the live sequences, and which rows of a step show what of them.

use std::{collections::HashMap, ops::Range};

use kimi_engine::NewSequence;
use kimi_k2::{FeatureRows, KimiModel, ModelError};
use kimi_scheduler::{SequenceId, StepPlan};
use kimi_tokens::PromptMedium;

use crate::image_cache::ImageCache;

/// What sequences see. Kept while they live: after a preemption an image's positions are computed again.
#[derive(Debug)]
pub(crate) struct LiveMedia {
    sequences: HashMap<SequenceId, Vec<PromptMedium>>,
    cache: ImageCache,
}

impl LiveMedia {
    /// With so many bytes for features at most.
    pub(crate) fn new(max_feature_bytes: u64) -> Self {
        Self { sequences: HashMap::new(), cache: ImageCache::new(max_feature_bytes) }
    }

    pub(crate) fn meet(&mut self, sequence: &NewSequence) {
        if !sequence.media.is_empty() {
            self.sequences.insert(sequence.id, sequence.media.clone());
        }
    }

    pub(crate) fn forget(&mut self, id: SequenceId) {
        self.sequences.remove(&id);
    }

    /// The rows of the plan's batch that show something, ascending. Looks at media whose positions are computed and whose
    /// features are not at hand: the costly part of a step that has such.
    pub(crate) fn rows(
        &mut self,
        model: &KimiModel,
        plan: &StepPlan,
    ) -> Result<Vec<FeatureRows>, ModelError> {
        let mut found = Vec::new();
        let mut first_row = 0;
        for entry in &plan.entries {
            let computed = entry.start..entry.start + entry.tokens.len();
            for PromptMedium { positions, medium } in
                self.sequences.get(&entry.sequence).into_iter().flatten()
            {
                let Some(shown) = overlap(positions, &computed) else { continue };
                found.push(FeatureRows {
                    rows: first_row + shown.start - entry.start..first_row + shown.end - entry.start,
                    features: self.cache.features(medium, |medium| model.encode_medium(medium))?,
                    first: shown.start - positions.start,
                });
            }
            first_row += entry.tokens.len();
        }
        Ok(found)
    }
}

/// The positions in both ranges, if there are any.
fn overlap(a: &Range<usize>, b: &Range<usize>) -> Option<Range<usize>> {
    let both = a.start.max(b.start)..a.end.min(b.end);
    (!both.is_empty()).then_some(both)
}
