//! The second tier: blocks outside the cache, by their content. Which ones are there, go there and leave it; never how.
//!
//! A block is *unsaved* from when others can find it until a plan saves it, *on its way* until the runner says that it
//! was written, and *stored* from then on. What leaves the cache before it was saved is saved by the very plan that gives
//! its place away.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::BlockId;
use crate::prefix::BlockKey;

/// What the second tier is when a scheduler begins with it.
#[derive(Clone, Debug, Default)]
pub struct TierContents {
    /// Blocks it may hold.
    pub capacity: usize,
    /// Blocks that it holds already, the one used longest ago first.
    pub stored: Vec<BlockKey>,
}

/// What a step does with the second tier before it computes: blocks are copied out, then others filled, then the tier
/// forgets, then it keeps the copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierPlan {
    /// Blocks to copy out before they change.
    pub saves: Vec<(BlockId, BlockKey)>,
    /// Blocks to fill from the tier. The runner stops at the first that it cannot bring back unharmed.
    pub restores: Vec<(BlockId, BlockKey)>,
    /// What the tier is to forget.
    pub drops: Vec<BlockKey>,
    /// Nobody waits for a token: the runner answers once nothing is on its way any more.
    pub drain: bool,
}

impl TierPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.saves.is_empty() && self.restores.is_empty() && self.drops.is_empty() && !self.drain
    }
}

/// What became of the last [`TierPlan`], and of saves of earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierReport {
    /// The first so many of the plan's saves were taken over; the others are asked for again.
    pub accepted: usize,
    /// The first so many of the plan's restores succeeded. The next one, if any, can never succeed.
    pub restored: usize,
    /// Blocks that were taken over, now or earlier, and are stored now.
    pub written: Vec<BlockKey>,
    /// Blocks that were taken over and are lost.
    pub unwritten: Vec<BlockKey>,
    /// Bytes of `restored`.
    pub restored_bytes: u64,
    /// Bytes of `written`.
    pub written_bytes: u64,
}

/// The tier's index.
#[derive(Debug)]
pub(crate) struct Tier {
    capacity: usize,
    /// With the time of the last use.
    stored: HashMap<BlockKey, u64>,
    by_use: BTreeMap<u64, BlockKey>,
    /// Counts uses.
    clock: u64,
    on_the_way: HashSet<BlockKey>,
    unsaved: HashMap<BlockKey, BlockId>,
    /// `unsaved` in order, with entries that are not true any more.
    queue: VecDeque<(BlockId, BlockKey)>,
    /// Evicted since the last plan without having been saved.
    evicted: Vec<(BlockId, BlockKey)>,
    drops: Vec<BlockKey>,
}

impl Tier {
    pub(crate) fn new(contents: TierContents) -> Self {
        let mut tier = Self {
            capacity: contents.capacity,
            stored: HashMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
            on_the_way: HashSet::new(),
            unsaved: HashMap::new(),
            queue: VecDeque::new(),
            evicted: Vec::new(),
            drops: Vec::new(),
        };
        for key in contents.stored {
            tier.store(key);
        }
        while tier.stored.len() > tier.capacity && tier.drop_oldest() {}
        tier
    }

    /// Blocks that are stored.
    pub(crate) fn len(&self) -> usize {
        self.stored.len()
    }

    pub(crate) fn has(&self, key: &BlockKey) -> bool {
        self.stored.contains_key(key)
    }

    /// Whether blocks are unsaved or on their way.
    pub(crate) fn is_unsettled(&self) -> bool {
        !self.unsaved.is_empty() || !self.on_the_way.is_empty()
    }

    /// Others can find this block now.
    pub(crate) fn published(&mut self, block: BlockId, key: BlockKey) {
        if !self.has(&key) && !self.on_the_way.contains(&key) {
            self.unsaved.insert(key, block);
            self.queue.push_back((block, key));
        }
    }

    /// Somebody was done with a block that others can find.
    pub(crate) fn used(&mut self, key: BlockKey) {
        if self.has(&key) {
            self.store(key);
        }
    }

    /// The block's place is given away by the plan that is being made.
    pub(crate) fn evicted(&mut self, block: BlockId, key: BlockKey) {
        self.unsaved.remove(&key);
        if !self.has(&key) && !self.on_the_way.contains(&key) {
            self.evicted.push((block, key));
        }
    }

    /// What has this name is not to be trusted.
    pub(crate) fn forget(&mut self, key: BlockKey) {
        self.unsaved.remove(&key);
        let stored = self.stored.remove(&key).map(|used| self.by_use.remove(&used)).is_some();
        // What is on its way is written first and dropped then.
        if self.on_the_way.remove(&key) || stored {
            self.drops.push(key);
        }
    }

    /// Saves what was evicted, and up to `limit` blocks that stay. An `idle` plan computes nothing.
    pub(crate) fn plan(&mut self, restores: Vec<(BlockId, BlockKey)>, limit: usize, idle: bool) -> TierPlan {
        let mut saves = std::mem::take(&mut self.evicted);
        let limit = saves.len() + limit;
        while saves.len() < limit
            && let Some((block, key)) = self.queue.pop_front()
        {
            if self.unsaved.get(&key) == Some(&block) {
                self.unsaved.remove(&key);
                saves.push((block, key));
            }
        }
        saves.retain(|(_, key)| self.make_room() && self.on_the_way.insert(*key));
        let drain = idle && restores.is_empty() && !self.on_the_way.is_empty();
        TierPlan { saves, restores, drops: std::mem::take(&mut self.drops), drain }
    }

    fn make_room(&mut self) -> bool {
        while self.stored.len() + self.on_the_way.len() >= self.capacity {
            if !self.drop_oldest() {
                return false;
            }
        }
        true
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, key)) = self.by_use.pop_first() else { return false };
        self.stored.remove(&key);
        self.drops.push(key);
        true
    }

    /// The runner had no room for a save; whether the block is still there is the caller's to know.
    pub(crate) fn declined(&mut self, block: BlockId, key: BlockKey, still_there: bool) {
        if self.on_the_way.remove(&key) && still_there {
            self.unsaved.insert(key, block);
            self.queue.push_front((block, key));
        }
    }

    /// The runner is done with blocks that were on their way.
    pub(crate) fn arrived(&mut self, report: &TierReport) {
        for key in &report.written {
            if self.on_the_way.remove(key) {
                self.store(*key);
            }
        }
        for key in &report.unwritten {
            self.on_the_way.remove(key);
        }
    }

    /// Makes `key` the one used last.
    fn store(&mut self, key: BlockKey) {
        self.clock += 1;
        if let Some(before) = self.stored.insert(key, self.clock) {
            self.by_use.remove(&before);
        }
        self.by_use.insert(self.clock, key);
    }

    /// Checks that the lists tell the same story.
    ///
    /// # Panics
    /// When they do not.
    pub(crate) fn check(&self) {
        assert!(self.stored.len() + self.on_the_way.len() <= self.capacity, "the second tier is too full");
        let known = |(used, key): (&u64, &BlockKey)| self.stored.get(key) == Some(used);
        assert!(self.by_use.len() == self.stored.len() && self.by_use.iter().all(known), "uses are wrong");
        assert!(!self.on_the_way.iter().any(|key| self.has(key)), "a block is stored and on its way");
        let waiting: HashSet<_> = self.queue.iter().collect();
        let queued = |(key, block): (&BlockKey, &BlockId)| waiting.contains(&(*block, *key));
        assert!(self.unsaved.iter().all(queued), "an unsaved block would never be saved");
        let elsewhere = |key: &BlockKey| self.has(key) || self.on_the_way.contains(key);
        assert!(!self.unsaved.keys().any(elsewhere), "an unsaved block is saved");
    }
}
