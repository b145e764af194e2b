//! Who holds which block of the cache, and what free blocks still contain. Blocks are plain indices.

use std::collections::{BTreeMap, HashMap};

use crate::prefix::BlockKey;
use crate::tier::Tier;
use crate::{BlockId, TierPlan, TierReport};

/// The blocks of the paged cache: counts of their holders, the free ones in the order in which they are handed out, and
/// the index that finds a block by its content.
///
/// A block is *blank* when it is free and its content is of no use, *kept* when it is free and can still be found, and
/// *held* when at least one sequence has it in its table.
#[derive(Debug)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    /// Handed out first, from the end, so that the block used last, warm in the processor's caches, is used next.
    blank: Vec<BlockId>,
    /// Handed out when no block is blank, the one released longest ago first.
    kept: BTreeMap<u64, BlockId>,
    /// Held and kept blocks by their content.
    index: HashMap<BlockKey, BlockId>,
    /// Counts releases.
    clock: u64,
    /// Where blocks are found that left the cache.
    pub(crate) tier: Option<Tier>,
}

#[derive(Clone, Debug, Default)]
struct Block {
    holders: u32,
    /// Present when the index leads here.
    key: Option<BlockKey>,
    /// Its place in `kept` while it is there.
    released: u64,
}

impl BlockPool {
    /// A pool of blocks `0..total`, all blank.
    pub(crate) fn new(total: usize) -> Self {
        Self {
            blocks: vec![Block::default(); total],
            blank: (0..total).rev().map(|index| BlockId(index as u32)).collect(),
            kept: BTreeMap::new(),
            index: HashMap::new(),
            clock: 0,
            tier: None,
        }
    }

    /// Blocks of the cache, free or not.
    pub(crate) fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks nobody holds.
    pub(crate) fn free(&self) -> usize {
        self.blank.len() + self.kept.len()
    }

    /// Free blocks that can still be found by their content.
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Moves `count` free blocks to the end of `table`; kept ones are forgotten for it. The caller has looked at
    /// [`free`](Self::free).
    pub(crate) fn take(&mut self, count: usize, table: &mut Vec<BlockId>) {
        for _ in 0..count {
            let block = self.blank.pop().unwrap_or_else(|| self.evict());
            self.blocks[block.0 as usize].holders = 1;
            table.push(block);
        }
    }

    /// Makes the block that was released longest ago a blank one and gives it away.
    fn evict(&mut self) -> BlockId {
        let (_, block) = self.kept.pop_first().expect("invariant: the caller asks for free blocks only");
        let key = self.blocks[block.0 as usize].key.take().expect("invariant: kept blocks have a key");
        self.index.remove(&key);
        if let Some(tier) = &mut self.tier {
            tier.evicted(block, key);
        }
        block
    }

    /// The blocks with the first of these contents, up to the first that is not there.
    pub(crate) fn find<'a>(&'a self, keys: &'a [BlockKey]) -> impl Iterator<Item = BlockId> + 'a {
        keys.iter().map_while(|key| self.index.get(key).copied())
    }

    /// Whether the block is free. Taking it for its content then uses up a free block.
    pub(crate) fn is_free(&self, block: BlockId) -> bool {
        self.blocks[block.0 as usize].holders == 0
    }

    /// Adds a found block to the end of `table`.
    pub(crate) fn share(&mut self, block: BlockId, table: &mut Vec<BlockId>) {
        let entry = &mut self.blocks[block.0 as usize];
        if entry.holders == 0 {
            self.kept.remove(&entry.released);
        }
        entry.holders += 1;
        table.push(block);
    }

    /// Lets others find a held block by its content. A second block with the same content stays unknown.
    pub(crate) fn publish(&mut self, block: BlockId, key: BlockKey) {
        if self.blocks[block.0 as usize].key.is_none() {
            let known = *self.index.entry(key).or_insert(block);
            if known == block {
                self.blocks[block.0 as usize].key = Some(key);
                if let Some(tier) = &mut self.tier {
                    tier.published(block, key);
                }
            }
        }
    }

    /// Makes sure that nobody finds these held blocks again.
    pub(crate) fn disown(&mut self, table: &[BlockId]) {
        for block in table {
            if let Some(key) = self.blocks[block.0 as usize].key.take() {
                self.index.remove(&key);
                self.forget(key);
            }
        }
    }

    /// Takes back a whole table. The end of a prefix is released before its beginning, so it is also evicted before: a
    /// block without the one before it could not be found.
    pub(crate) fn release(&mut self, table: &mut Vec<BlockId>) {
        for block in table.drain(..).rev() {
            let entry = &mut self.blocks[block.0 as usize];
            entry.holders -= 1;
            if entry.holders > 0 {
                continue;
            }
            let Some(key) = entry.key else {
                self.blank.push(block);
                continue;
            };
            self.clock += 1;
            entry.released = self.clock;
            self.kept.insert(self.clock, block);
            if let Some(tier) = &mut self.tier {
                tier.used(key);
            }
        }
    }

    /// The first of these contents that are in the second tier and not in the cache.
    pub(crate) fn stored<'a>(&'a self, keys: &'a [BlockKey]) -> impl Iterator<Item = &'a BlockKey> {
        let tier = self.tier.as_ref();
        keys.iter()
            .take_while(move |key| tier.is_some_and(|tier| tier.has(key)) && !self.index.contains_key(key))
    }

    /// Drops a content from the second tier.
    pub(crate) fn forget(&mut self, key: BlockKey) {
        if let Some(tier) = &mut self.tier {
            tier.forget(key);
        }
    }

    /// Books what the runner did with the second tier.
    pub(crate) fn settle(&mut self, plan: &TierPlan, report: &TierReport) {
        let Some(tier) = &mut self.tier else { return };
        for (block, key) in plan.saves.iter().skip(report.accepted).rev() {
            tier.declined(*block, *key, self.index.get(key) == Some(block));
        }
        tier.arrived(report);
    }

    /// Checks that counts, lists and index tell the same story, given how often each block is in a table.
    ///
    /// # Panics
    /// When they do not.
    pub(crate) fn check(&self, holders: &[u32]) {
        let mut free = vec![false; self.total()];
        for block in self.blank.iter().chain(self.kept.values()) {
            let first_time = !std::mem::replace(&mut free[block.0 as usize], true);
            assert!(first_time, "{block:?} is free twice");
        }
        for (index, block) in self.blocks.iter().enumerate() {
            assert_eq!(block.holders, holders[index], "block {index} is in other tables than it counts");
            assert_eq!(block.holders == 0, free[index], "block {index} is held and free, or neither");
        }
        for (released, block) in &self.kept {
            let entry = &self.blocks[block.0 as usize];
            assert!(entry.key.is_some() && entry.released == *released, "{block:?} is kept in vain");
        }
        for (index, block) in self.blocks.iter().enumerate() {
            let leads = block.key.is_none_or(|key| self.index.get(&key) == Some(&BlockId(index as u32)));
            assert!(leads, "the name of block {index} leads elsewhere");
        }
        let named = self.blocks.iter().filter(|block| block.key.is_some()).count();
        assert_eq!(named, self.index.len(), "the index has a name that no block has");
        assert!(
            self.blank.iter().all(|block| self.blocks[block.0 as usize].key.is_none()),
            "a blank block has a name"
        );
        if let Some(tier) = &self.tier {
            tier.check();
        }
    }
}
