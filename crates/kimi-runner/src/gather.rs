//! From a plan's entries to the rows of one forward pass.

use kimi_k2::{Batch, SequenceSpan};
use kimi_scheduler::StepPlan;

/// Hop 6 of 9. Lays the tokens of all entries in one row after another, in the plan's order, and marks the rows whose logits are
/// wanted: of each entry its scores, then, if it samples, the last row, with a draft those of the draft and the one before. The
/// logits come back in that order.
pub(crate) fn gather(plan: &StepPlan) -> Batch {
    let mut batch = Batch {
        token_ids: Vec::with_capacity(plan.entries.iter().map(|entry| entry.tokens.len()).sum()),
        spans: Vec::with_capacity(plan.entries.len()),
        sample_rows: Vec::new(),
        features: Vec::new(),
    };
    for entry in &plan.entries {
        let first = batch.token_ids.len();
        batch.token_ids.extend_from_slice(&entry.tokens);
        let end = batch.token_ids.len();
        batch.spans.push(SequenceSpan {
            rows: first..end,
            start: entry.start,
            block_table: entry.blocks.iter().map(|block| block.0).collect(),
        });
        batch.sample_rows.extend(entry.scores.clone().map(|row| (first + row) as u32));
        if entry.samples {
            batch.sample_rows.extend((end - 1 - entry.draft..end).map(|row| row as u32));
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use kimi_scheduler::{BlockId, PlanEntry, SequenceId};

    use super::*;

    #[test]
    fn rows_follow_the_plan() {
        let entry = |id, start, tokens: &[u32], draft, blocks: &[u32], samples| PlanEntry {
            scores: 0..0,
            sequence: SequenceId(id),
            start,
            tokens: tokens.to_vec(),
            draft,
            blocks: blocks.iter().copied().map(BlockId).collect(),
            samples,
        };
        let batch = gather(&StepPlan {
            entries: vec![
                entry(7, 20, &[5], 0, &[2, 9], true),
                entry(8, 0, &[1, 2, 3], 0, &[4], false),
                PlanEntry { scores: 0..1, ..entry(9, 16, &[6, 7], 0, &[0, 1], true) },
                entry(6, 3, &[1, 8, 9], 2, &[3, 5], true),
            ],
            ..StepPlan::default()
        });
        assert_eq!(batch.token_ids, [5, 1, 2, 3, 6, 7, 1, 8, 9]);
        assert_eq!(batch.sample_rows, [0, 4, 5, 6, 7, 8]);
        let spans: Vec<_> = batch
            .spans
            .iter()
            .map(|span| (span.rows.clone(), span.start, span.block_table.to_vec()))
            .collect();
        assert_eq!(
            spans,
            [(0..1, 20, vec![2, 9]), (1..4, 0, vec![4]), (4..6, 16, vec![0, 1]), (6..9, 3, vec![3, 5])]
        );
    }
}
