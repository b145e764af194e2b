//! Attention of all tokens to all tokens, as a vision tower needs it.
//!
//! A part of the work is one head of some rows. It goes through the keys in tiles, with a softmax that runs over them, so the
//! scores that exist at a time are those of a tile: memory grows with the tokens, not with their square.

use std::ops::Range;

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};

use crate::{
    Activations,
    bf16_attention::{Bf16Attention, Expanded},
    cpu::{RowsMut, RowsRef, expect_size},
    mla_prefill::HeadTile,
    output::{Output, Place, in_units},
    softmax::RunningSoftmax,
    vectorized::scale,
};

/// Keys that are looked at together.
const TILE: usize = 256;
/// Rows whose scores exist at a time: with a tile, 128 KiB, which stay in a core's second-level cache.
const ROWS: usize = 128;
/// Rows of a part: many enough that preparing the keys costs little.
const PART: usize = 1024;

/// Attention without a mask, with the scale `width^-0.5`. `qkv` is f32 `[tokens, 3 * heads * width]`: queries of all heads,
/// then keys, then values; `out` is f32 `[tokens, heads * width]`. With [`Activations::Rounded`] products are made in bf16
/// where the CPU can.
///
/// Beside the tensors, a thread takes some numbers for each of 1024 rows.
///
/// # Errors
/// When shapes do not fit each other.
pub fn full_attention(qkv: &Tensor, heads: usize, activations: Activations, out: &Tensor) -> Result<()> {
    out.inplace_op2(qkv, &FullAttention { heads, activations })
}

/// Reference of [`full_attention`]: all scores at once.
pub fn full_attention_reference(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let tokens = qkv.dim(0)?;
    let split = qkv.reshape((tokens, 3, heads, ()))?;
    let part = |index: usize| split.narrow(1, index, 1)?.squeeze(1)?.transpose(0, 1)?.contiguous();
    let (q, k, v) = (part(0)?, part(1)?, part(2)?); // [heads, tokens, width]
    let scores = (q.matmul(&k.t()?)? * (q.dim(2)? as f64).powf(-0.5))?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(2)?)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(2)?)?;
    weights.matmul(&v)?.transpose(0, 1)?.reshape((tokens, ()))
}

struct FullAttention {
    heads: usize,
    activations: Activations,
}

impl InplaceOp2 for FullAttention {
    fn name(&self) -> &'static str {
        "full_attention"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        layout: &Layout,
        qkv: &CpuStorage,
        qkv_layout: &Layout,
    ) -> Result<()> {
        let qkv = RowsRef::new(self.name(), (qkv, qkv_layout))?;
        let out = RowsMut::new(self.name(), out, layout)?;
        expect_size(self.name(), "width of queries, keys and values", qkv.width, 3 * out.width)?;
        expect_size(self.name(), "rows of the output", out.rows, qkv.rows)?;
        let width = out.width.checked_div(self.heads).unwrap_or(0);
        expect_size(self.name(), "width of the output", out.width, width * self.heads)?;
        if width == 0 {
            return Ok(());
        }
        let work = 2 * qkv.rows * qkv.rows * out.width;
        let RowsMut { data, width: out_width, stride, .. } = out;
        let mut blocks: Vec<RowsMut<'_>> = data
            .chunks_mut(PART * stride)
            .map(|data| RowsMut { rows: data.len().div_ceil(stride), width: out_width, stride, data })
            .collect();
        let outputs = blocks.iter_mut().map(Output::by_row).collect();
        in_units(outputs, width, work, |Place { index: block, first: column }, mut out, _| {
            let rows = block * PART..qkv.rows.min((block + 1) * PART);
            let mut part = Part::new(&qkv, column, width, rows);
            for first in (0..qkv.rows).step_by(TILE) {
                part.attend(first..qkv.rows.min(first + TILE), self.bf16());
            }
            for row in 0..part.softmax.len() {
                out.put_row(row, part.finished(row));
            }
        });
        Ok(())
    }
}

impl FullAttention {
    /// How bf16 is multiplied, if rounding is allowed and the CPU can.
    fn bf16(&self) -> Option<Bf16Attention> {
        if self.activations == Activations::Rounded { Bf16Attention::detect() } else { None }
    }
}

/// One head of some rows.
struct Part<'a> {
    qkv: &'a RowsRef<'a>,
    /// Where the head begins among the queries; keys and values follow at the same distance.
    column: usize,
    width: usize,
    /// `[rows, width]`, scaled.
    queries: Vec<f32>,
    softmax: Vec<RunningSoftmax>,
    /// `[rows, width]`: what was accumulated.
    values: Vec<f32>,
    expanded: Expanded,
    scores: Vec<f32>,
}

impl<'a> Part<'a> {
    fn new(qkv: &'a RowsRef<'a>, column: usize, width: usize, rows: Range<usize>) -> Self {
        let count = rows.len();
        let mut queries: Vec<f32> = rows.flat_map(|row| &qkv.row(row)[column..][..width]).copied().collect();
        scale(&mut queries, (width as f32).sqrt().recip());
        Self {
            qkv,
            column,
            width,
            queries,
            softmax: vec![RunningSoftmax::default(); count],
            values: vec![0.0; count * width],
            expanded: Expanded::default(),
            scores: Vec::new(),
        }
    }

    /// Adds what the rows see of some tokens.
    fn attend(&mut self, seen: Range<usize>, bf16: Option<Bf16Attention>) {
        let (width, count) = (self.width, seen.len());
        let hidden = self.qkv.width / 3;
        let part = |index: usize| RowsRef {
            data: &self.qkv.data[seen.start * self.qkv.stride + index * hidden + self.column..],
            rows: count,
            width,
            stride: self.qkv.stride,
        };
        let mut tile = HeadTile::new(part(1), part(2), bf16, &mut self.expanded);
        let rows = self.queries.chunks(ROWS * width).zip(self.values.chunks_mut(ROWS * width));
        for ((queries, values), softmax) in rows.zip(self.softmax.chunks_mut(ROWS)) {
            let queries = RowsRef { data: queries, rows: softmax.len(), width, stride: width };
            self.scores.resize(softmax.len() * count, 0.0);
            tile.score(queries, &mut self.scores);
            let per_row = self.scores.chunks_exact_mut(count).zip(values.chunks_exact_mut(width));
            for ((scores, values), softmax) in per_row.zip(softmax.iter_mut()) {
                scale(values, softmax.update(scores));
            }
            let weights = RowsRef { data: &self.scores, rows: softmax.len(), width: count, stride: count };
            tile.add_weighted(weights, values);
        }
    }

    /// The result of a row.
    fn finished(&mut self, row: usize) -> &[f32] {
        let values = &mut self.values[row * self.width..][..self.width];
        scale(values, self.softmax[row].normalizer());
        values
    }
}
