//! What must hold between any two calls. Run by tests after every call and by the engine whenever it is idle.

use crate::Scheduler;
use crate::sequence::Sequence;

impl Scheduler {
    /// Checks every invariant of the scheduler's state.
    ///
    /// # Panics
    /// When one does not hold: a block that is lost or counted wrongly, a sequence out of order or with a hole in its table.
    pub fn check_invariants(&self) {
        self.check_blocks();
        self.check_order();
        self.check_sequences();
    }

    /// Free and held blocks together are exactly the cache, and each counts the tables it is in.
    fn check_blocks(&self) {
        let mut holders = vec![0; self.pool.total()];
        for block in self.running.iter().flat_map(Sequence::blocks) {
            holders[block.0 as usize] += 1;
        }
        for block in &self.restore.table {
            holders[block.0 as usize] += 1;
        }
        self.pool.check(&holders);
    }

    /// The most urgent first, and not too many of them.
    fn check_order(&self) {
        let urgency = self.running.iter().map(|sequence| sequence.standing.priority);
        assert!(urgency.is_sorted(), "running sequences are out of order");
        self.waiting.check(&self.running);
        assert!(self.running.len() <= self.config.max_sequences, "too many sequences run");
    }

    /// Tables cover what is computed, waiting ones hold nothing, and everybody has something to compute.
    fn check_sequences(&self) {
        for sequence in &self.running {
            let covered = sequence.blocks().len() * self.config.block_size;
            assert!(sequence.computed() <= covered, "{:?} has positions without a block", sequence.id);
        }
        for sequence in self.waiting.iter() {
            assert!(
                sequence.blocks().is_empty() && sequence.computed() == 0,
                "{:?} waits with blocks",
                sequence.id
            );
        }
        for sequence in self.running.iter().chain(self.waiting.iter()) {
            assert!(sequence.computed() < sequence.len(), "{:?} has nothing to compute", sequence.id);
            assert!(sequence.len() < self.config.context_limit(), "{:?} outgrew its context", sequence.id);
        }
    }
}
