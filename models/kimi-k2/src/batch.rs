//! What one forward pass is given: plain host data, an argument, never a global.

use std::{ops::Range, sync::Arc};

/// The rows of one forward pass: a few tokens of each of several sequences.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Token id of each row.
    pub token_ids: Vec<u32>,
    /// Which rows belong to which sequence, in row order, covering every row.
    pub spans: Vec<SequenceSpan>,
    /// Rows whose logits are wanted.
    pub sample_rows: Vec<u32>,
}

/// One sequence's share of a batch.
#[derive(Clone, Debug)]
pub struct SequenceSpan {
    /// Its rows. Row `rows.start + i` sits at position `start + i`.
    pub rows: Range<usize>,
    /// Tokens of the sequence that are in the cache already; also the position of the first row.
    pub start: usize,
    /// Cache blocks: position `p` lies in slot `p % block_size` of block `block_table[p / block_size]`.
    pub block_table: Arc<[u32]>,
}
