//! Which blocks of the cache are free. Blocks are plain indices; a sequence's table holds those that are not.

use crate::BlockId;

/// The free list of the paged cache.
///
/// A block has one holder. Sharing prefixes will put a reference count per block here and keep released blocks findable
/// by the hash of their content until [`take`](Self::take) hands them out again.
#[derive(Debug)]
pub(crate) struct BlockPool {
    /// Handed out from the end, so that the block used last, warm in the processor's caches, is used next.
    free: Vec<BlockId>,
    total: usize,
}

impl BlockPool {
    /// A pool of blocks `0..total`, all free.
    pub(crate) fn new(total: usize) -> Self {
        Self { free: (0..total).rev().map(|index| BlockId(index as u32)).collect(), total }
    }

    /// Blocks of the cache, free or not.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Blocks nobody holds.
    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    /// The free blocks, in no useful order.
    pub(crate) fn free_blocks(&self) -> &[BlockId] {
        &self.free
    }

    /// Moves `count` free blocks to the end of `table`. The caller has looked at [`free`](Self::free).
    pub(crate) fn take(&mut self, count: usize, table: &mut Vec<BlockId>) {
        let keep =
            self.free.len().checked_sub(count).expect("invariant: the caller asks for free blocks only");
        table.extend(self.free.drain(keep..).rev());
    }

    /// Takes back a whole table.
    pub(crate) fn release(&mut self, table: &mut Vec<BlockId>) {
        self.free.extend(table.drain(..).rev());
    }
}
