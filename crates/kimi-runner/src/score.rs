//! How likely the model finds given tokens: for perplexity, and for comparing engines.

use std::{iter::FusedIterator, sync::Arc};

use kimi_k2::{Batch, CacheDtype, KimiModel, KvPool, ModelError, SequenceSpan};
use kimi_tokens::TokenId;
use serde::Serialize;

use crate::{ScoreError, logprobs::LogSoftmax, softmax::finite_max};

/// Positions in one cache block.
const BLOCK_SIZE: usize = 16;

/// Positions computed at once, whose logits are in memory together: 84 MB with 163,840 tokens.
const CHUNK: usize = 128;

/// What the model says of one given token. Serializes as one line of `kimi-serve score`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoredToken {
    /// Counted from 0.
    pub position: usize,
    /// The given token.
    pub token: TokenId,
    /// Natural log of its probability after the tokens before it; `None` at position 0, which nothing predicts.
    pub logprob: Option<f32>,
    /// The most likely tokens at this position with their log probabilities, descending. Empty at position 0.
    pub top: Vec<(TokenId, f32)>,
}

/// The scores of `tokens` in order, computed while they are asked for; `top_n` alternatives each. The cache of the whole
/// sequence is kept in f32, the logits of 128 positions only.
pub fn score<'a>(
    model: &'a KimiModel,
    tokens: &'a [TokenId],
    top_n: usize,
) -> Result<Scores<'a>, ScoreError> {
    score_in_chunks(model, tokens, top_n, CHUNK)
}

/// [`score`] with a given number of positions at once; the result does not depend on it.
pub fn score_in_chunks<'a>(
    model: &'a KimiModel,
    tokens: &'a [TokenId],
    top_n: usize,
    chunk: usize,
) -> Result<Scores<'a>, ScoreError> {
    let vocabulary = model.config().vocab_size;
    if let Some((position, &token)) =
        tokens.iter().enumerate().find(|&(_, &token)| token as usize >= vocabulary)
    {
        return Err(ScoreError::UnknownToken { token, position, vocabulary });
    }
    let blocks = tokens.len().div_ceil(BLOCK_SIZE).max(1);
    let kv = KvPool::new(model.config(), blocks, BLOCK_SIZE, CacheDtype::F32)?;
    let chunk = chunk.max(1);
    let block_table = (0..blocks as u32).collect();
    Ok(Scores {
        model,
        tokens,
        top_n,
        chunk,
        kv,
        block_table,
        position: 0,
        logits: Vec::new(),
        failed: false,
    })
}

/// An iterator over the scores; ends after the first error.
pub struct Scores<'a> {
    model: &'a KimiModel,
    tokens: &'a [TokenId],
    top_n: usize,
    chunk: usize,
    kv: KvPool,
    block_table: Arc<[u32]>,
    /// The next position to report.
    position: usize,
    /// Logits `[rows, vocabulary]` of a chunk; those that predict `position` are row `(position - 1) % chunk`.
    logits: Vec<f32>,
    failed: bool,
}

impl Scores<'_> {
    fn score_next(&mut self) -> Result<ScoredToken, ScoreError> {
        let (position, token) = (self.position, self.tokens[self.position]);
        self.position += 1;
        let Some(before) = position.checked_sub(1) else {
            return Ok(ScoredToken { position, token, logprob: None, top: Vec::new() });
        };
        if before.is_multiple_of(self.chunk) {
            self.compute(before)?;
        }
        let vocabulary = self.model.config().vocab_size;
        let row = &self.logits[before % self.chunk * vocabulary..][..vocabulary];
        let max = finite_max(row).ok_or(ScoreError::NonFiniteLogits { position })?;
        let distribution = LogSoftmax::new(row, max);
        let (logprob, top) = (Some(distribution.of(token)), distribution.top(self.top_n));
        Ok(ScoredToken { position, token, logprob, top })
    }

    /// Computes the logits of a chunk from `start` on. The last token of all predicts nothing that is asked for.
    fn compute(&mut self, start: usize) -> Result<(), ModelError> {
        let end = (start + self.chunk).min(self.tokens.len() - 1);
        let rows = end - start;
        let batch = Batch {
            token_ids: self.tokens[start..end].to_vec(),
            spans: vec![SequenceSpan { rows: 0..rows, start, block_table: self.block_table.clone() }],
            sample_rows: (0..rows as u32).collect(),
            features: vec![],
        };
        self.logits = self.model.forward(&batch, &mut self.kv)?.flatten_all()?.to_vec1()?;
        Ok(())
    }
}

impl Iterator for Scores<'_> {
    type Item = Result<ScoredToken, ScoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.position == self.tokens.len() {
            return None;
        }
        let scored = self.score_next();
        self.failed = scored.is_err();
        Some(scored)
    }
}

impl FusedIterator for Scores<'_> {}
