//! Blocks that come back from the second tier, for whoever is admitted next.
//!
//! Nothing is kept from plan to plan: each looks what the next of the queue would find, in the cache and then in the
//! tier, and has some of the latter brought back. They become free blocks that can be found, like any others; once none
//! is missing, the sequence is admitted and finds them. So a restore that fails costs a computation and nothing else.

use crate::{BlockId, Scheduler, TierContents, TierReport, prefix::BlockKey, tier::Tier};

/// Blocks that the plan in flight fills from the second tier, held meanwhile with those before them.
#[derive(Debug, Default)]
pub(crate) struct Restore {
    /// The prefix: what was found in the cache, then what is being restored.
    pub(crate) table: Vec<BlockId>,
    /// The names of the table's last blocks.
    keys: Vec<BlockKey>,
}

impl Scheduler {
    /// With a second tier for blocks that leave the cache.
    #[must_use]
    pub fn with_tier(mut self, contents: TierContents) -> Self {
        self.pool.tier = (contents.capacity > 0).then(|| Tier::new(contents));
        self
    }

    /// Whether a plan would have work for the second tier though nobody computes.
    pub fn has_unsettled_blocks(&self) -> bool {
        self.pool.tier.as_ref().is_some_and(Tier::is_unsettled)
    }

    /// Books what the step did with the second tier; its [`commit`](Self::commit) follows.
    pub fn settle(&mut self, plan: &crate::TierPlan, report: &TierReport) {
        self.pool.settle(plan, report);
        let Restore { mut table, keys } = std::mem::take(&mut self.restore);
        let first = table.len() - keys.len();
        for (block, key) in table[first..].iter().zip(&keys).take(report.restored) {
            self.pool.publish(*block, *key);
        }
        if let Some(bad) = keys.get(report.restored) {
            self.pool.forget(*bad);
            self.failed_restores += 1;
        }
        self.restored_tokens += (report.restored.min(keys.len()) * self.config.block_size) as u64;
        self.pool.release(&mut table);
    }

    /// Has blocks brought back that the next of the queue, for whom there is room, would find after `found`. At most as
    /// many tokens as a step computes, so that those who run are not held up.
    pub(crate) fn restores_for_next(&mut self, found: &[BlockId]) -> bool {
        let limit = self.tier_limit();
        let Some(next) = self.waiting.next_mut() else { return false };
        let keys = next.prefix_keys(self.config.block_size);
        let keys: Vec<_> = self.pool.stored(&keys[found.len()..]).take(limit).copied().collect();
        if keys.is_empty() {
            return false;
        }
        let Restore { table, .. } = &mut self.restore;
        for block in found {
            self.pool.share(*block, table);
        }
        self.pool.take(keys.len(), table);
        self.restore.keys = keys;
        true
    }

    /// Whether the plan that is being made brings blocks back. Nobody is admitted by it then.
    pub(crate) fn is_restoring(&self) -> bool {
        !self.restore.keys.is_empty()
    }

    /// What the plan that is being made does with the second tier; it is `idle` if nobody computes.
    pub(crate) fn plan_tier(&mut self, idle: bool) -> crate::TierPlan {
        let Restore { table, keys } = &self.restore;
        let restores = table[table.len() - keys.len()..].iter().copied().zip(keys.iter().copied()).collect();
        let limit = self.tier_limit();
        self.pool.tier.as_mut().map(|tier| tier.plan(restores, limit, idle)).unwrap_or_default()
    }

    /// Blocks that a plan saves, and restores, at most: those of a step's tokens.
    fn tier_limit(&self) -> usize {
        (self.config.max_batch_tokens / self.config.block_size).max(1)
    }
}
