//! What one forward pass is given: host data, an argument, never a global.

use std::{ops::Range, sync::Arc};

use candle_core::{DType, Tensor};

use crate::{KvPool, ModelConfig, ModelError};

/// The rows of one forward pass: a few tokens of each of several sequences.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Token id of each row.
    pub token_ids: Vec<u32>,
    /// Which rows belong to which sequence, in row order, covering every row.
    pub spans: Vec<SequenceSpan>,
    /// Rows whose logits are wanted.
    pub sample_rows: Vec<u32>,
    /// Rows of images and clips, ascending. The embeddings of their token ids are not used.
    pub features: Vec<FeatureRows>,
}

/// Rows that begin as features of an image or clip instead of a token's embedding.
#[derive(Clone, Debug)]
pub struct FeatureRows {
    /// Which rows.
    pub rows: Range<usize>,
    /// f32 `[tokens, hidden]`, from [`KimiModel::encode_medium`](crate::KimiModel::encode_medium).
    pub features: Tensor,
    /// Which of the features is the first row's; the next row has the next.
    pub first: usize,
}

/// Up to this many rows, all spans together, each row of a batch gets the logits that it would get alone, to the last bit:
/// products are made row by row and attention in its absorbed form. Larger batches differ in the rounding.
pub const UNIFORM_ROWS: usize = {
    let (products, attention) = (kimi_kernels::FEW_ROWS, crate::attention::ABSORBED_ROWS);
    if products < attention { products } else { attention }
};

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

impl Batch {
    /// Checks the batch against itself, a vocabulary and a cache.
    pub(crate) fn check(&self, config: &ModelConfig, kv: &KvPool) -> Result<(), ModelError> {
        let vocabulary = config.vocab_size;
        let rows = self.token_ids.len();
        if rows == 0 {
            return Err(ModelError::Batch("it has no rows".into()));
        }
        if let Some(id) = self.token_ids.iter().find(|id| **id as usize >= vocabulary) {
            return Err(ModelError::Batch(format!(
                "token id {id} is outside the vocabulary of {vocabulary}"
            )));
        }
        if let Some(row) = self.sample_rows.iter().find(|row| **row as usize >= rows) {
            return Err(ModelError::Batch(format!("sampled row {row} of {rows} rows")));
        }
        let mut next = 0;
        for span in &self.spans {
            if span.rows.start != next || span.rows.is_empty() {
                let found = &span.rows;
                return Err(ModelError::Batch(format!("a span covers rows {found:?}; row {next} is next")));
            }
            next = span.rows.end;
            span.check(kv.block_count(), kv.block_size())?;
        }
        if next != rows {
            return Err(ModelError::Batch(format!("spans cover {next} of {rows} rows")));
        }
        self.check_features(config.hidden_size)
    }

    fn check_features(&self, hidden: usize) -> Result<(), ModelError> {
        let refuse = |what| Err(ModelError::Batch(what));
        let mut next = 0;
        for FeatureRows { rows, features, first } in &self.features {
            if rows.is_empty() || rows.start < next || rows.end > self.token_ids.len() {
                let all = self.token_ids.len();
                return refuse(format!("features for rows {rows:?} of {all}, where {next} is next"));
            }
            next = rows.end;
            let (dtype, dims, end) = (features.dtype(), features.dims(), first + rows.len());
            if dtype != DType::F32 || dims.len() != 2 || dims[1] != hidden || dims[0] < end {
                let found = format!("{dtype:?} {dims:?}");
                return refuse(format!(
                    "features {first}..{end} of f32 [tokens, {hidden}] wanted, not of {found}"
                ));
            }
        }
        Ok(())
    }
}

impl SequenceSpan {
    fn check(&self, block_count: usize, block_size: usize) -> Result<(), ModelError> {
        let context = self.start + self.rows.len();
        let needed = context.div_ceil(block_size);
        if self.block_table.len() < needed {
            let found = self.block_table.len();
            return Err(ModelError::Batch(format!("{context} positions need {needed} blocks, not {found}")));
        }
        match self.block_table[..needed].iter().find(|block| **block as usize >= block_count) {
            Some(block) => Err(ModelError::Batch(format!("block {block} of {block_count} blocks"))),
            None => Ok(()),
        }
    }
}
