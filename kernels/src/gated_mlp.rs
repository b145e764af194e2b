//! Gated feed-forward blocks: a dense layer's, the shared experts, and all routed experts of a step at once.
//!
//! `out[t] = Σ share · down(silu(gate(x[t])) * up(x[t]))` over the blocks that token goes through. All blocks go through
//! each phase together, so that threads share the work of a step evenly, whatever the router chose, and meet twice a
//! layer instead of three times an expert.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};

use crate::{
    Activations, Weight,
    cpu::{RowsMut, RowsRef, expect_size},
    kept::Kept,
    output::{Output, Place, UNIT, in_parts},
    product::{Features, multiply},
    rounded_rows::{Inputs, RoundedRows},
    softmax::exp,
    threads,
    vectorized::{add_scaled, vectorized},
    weight_rows::WeightRows,
};

/// Tokens whose results a thread adds up at a time.
const TOKENS: usize = 16;

/// A block and the tokens that go through it.
#[derive(Clone, Copy, Debug)]
pub struct GatedMlp<'a> {
    /// `[inner, hidden]`.
    pub gate: &'a Weight,
    /// `[inner, hidden]`.
    pub up: &'a Weight,
    /// `[hidden, inner]`.
    pub down: &'a Weight,
    /// Its tokens: rows of `x` and `out`.
    pub rows: &'a [u32],
    /// What its result counts for each of them.
    pub shares: &'a [f32],
}

/// Writes the sums of each token's results to `out`, added in the order of the `blocks`. `x` and `out` are f32 `[tokens, hidden]`.
///
/// # Errors
/// When the sizes of weights, rows and shares contradict each other.
pub fn gated_mlps(x: &Tensor, blocks: &[GatedMlp<'_>], activations: Activations, out: &Tensor) -> Result<()> {
    out.inplace_op2(x, &GatedMlps { blocks, activations })
}

/// Reference of [`gated_mlps`]: one block after the other, in other references and candle's own ops.
pub fn gated_mlps_reference(x: &Tensor, blocks: &[GatedMlp<'_>]) -> Result<Tensor> {
    use crate::reference::{gather_rows, linear};
    blocks.iter().try_fold(x.zeros_like()?, |out, block| {
        let x = gather_rows(x, block.rows)?; // [rows, hidden]
        let product = (linear(&x, block.gate)?.silu()? * linear(&x, block.up)?)?; // [rows, inner]
        let shares = Tensor::new(block.shares, x.device())?.unsqueeze(1)?;
        let result = linear(&product, block.down)?.broadcast_mul(&shares)?; // [rows, hidden]
        out.index_add(&Tensor::new(block.rows, x.device())?, &result, 0)
    })
}

struct GatedMlps<'a> {
    blocks: &'a [GatedMlp<'a>],
    activations: Activations,
}

impl InplaceOp2 for GatedMlps<'_> {
    fn name(&self) -> &'static str {
        "gated_mlps"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> Result<()> {
        let x = RowsRef::new(self.name(), (x, x_layout))?;
        let mut out = RowsMut::new(self.name(), out, layout)?;
        expect_size(self.name(), "rows of the output", out.rows, x.rows)?;
        let blocks = self.blocks.iter().filter(|block| !block.rows.is_empty());
        let blocks: Vec<Block<'_>> =
            blocks.map(|block| self.check(block, &x, &out)).collect::<Result<_>>()?;
        let products = self.gate(&x, &blocks);
        let results = self.down(&products, &blocks);
        add(&results, &blocks, &mut out);
        Ok(())
    }
}

/// A block whose sizes were checked.
struct Block<'a> {
    gate: WeightRows<'a>,
    up: WeightRows<'a>,
    down: WeightRows<'a>,
    rows: &'a [u32],
    shares: &'a [f32],
}

impl Block<'_> {
    fn inner(&self) -> usize {
        self.gate.rows()
    }

    /// Multiply-adds of each of its three products.
    fn work(&self) -> usize {
        self.rows.len() * self.inner() * self.gate.columns()
    }
}

impl GatedMlps<'_> {
    fn check<'a>(&self, block: &GatedMlp<'a>, x: &RowsRef<'_>, out: &RowsMut<'_>) -> Result<Block<'a>> {
        let expect = |what, found, expected| expect_size(self.name(), what, found, expected);
        expect("input of gate", block.gate.in_features, x.width)?;
        expect("input of up", block.up.in_features, x.width)?;
        expect("output of up", block.up.out_features, block.gate.out_features)?;
        expect("input of down", block.down.in_features, block.gate.out_features)?;
        expect("output of down", block.down.out_features, out.width)?;
        expect("shares", block.shares.len(), block.rows.len())?;
        if let Some(row) = block.rows.iter().find(|row| **row as usize >= x.rows) {
            bail!("{}: row {row} of {}", self.name(), x.rows);
        }
        Ok(Block {
            gate: WeightRows::new(block.gate)?,
            up: WeightRows::new(block.up)?,
            down: WeightRows::new(block.down)?,
            rows: block.rows,
            shares: block.shares,
        })
    }

    /// `silu(gate(x)) * up(x)` of each block.
    fn gate(&self, x: &RowsRef<'_>, blocks: &[Block<'_>]) -> Numbers {
        let weights = blocks.iter().flat_map(|block| [block.gate, block.up]);
        let rounded = RoundedRows::new(*x, self.activations, weights);
        let picked = |block: &Block<'_>| rounded.pick(block.rows.iter().map(|row| *row as usize));
        let inputs: Vec<Inputs<'_>> = blocks.iter().map(picked).collect();
        let mut products = Numbers::new(blocks.iter().map(|block| (block.rows.len(), block.inner())));
        let work = 2 * blocks.iter().map(Block::work).sum::<usize>();
        in_parts(products.outputs(), UNIT, work, |Place { index, first }, mut out, next| {
            let (block, x, count) = (&blocks[index], &inputs[index], out.features());
            let mut gate = Kept::new(x.len() * count); // [rows, count]
            let mut up = Kept::new(x.len() * count);
            let of_up = Features { weight: block.up, first };
            let next = next.map(|next| Features { weight: blocks[next.index].gate, first: next.first });
            let of_gate = Features { weight: block.gate, first };
            multiply(x, of_gate, Output::contiguous(&mut gate, count), Some(of_up));
            multiply(x, of_up, Output::contiguous(&mut up, count), next);
            silu_mul(&mut gate, &up);
            for (row, products) in gate.chunks_exact(count).enumerate() {
                out.put_row(row, products);
            }
        });
        products
    }

    /// `down` of each block's product.
    fn down(&self, products: &Numbers, blocks: &[Block<'_>]) -> Numbers {
        let mut rounded: Vec<Option<RoundedRows<'_>>> = blocks.iter().map(|_| None).collect();
        let work = blocks.iter().map(Block::work).sum::<usize>();
        threads::chunks_mut(&mut rounded, 1, work, |index, rounded| {
            rounded[0] = Some(RoundedRows::new(products.of(index), self.activations, [blocks[index].down]));
        });
        let rounded = rounded.iter().flatten().zip(blocks);
        let inputs: Vec<Inputs<'_>> = rounded.map(|(rows, block)| rows.pick(0..block.rows.len())).collect();
        let mut results = Numbers::new(blocks.iter().map(|block| (block.rows.len(), block.down.rows())));
        let features = |place: Place| Features { weight: blocks[place.index].down, first: place.first };
        in_parts(results.outputs(), UNIT, work, |here, out, next| {
            multiply(&inputs[here.index], features(here), out, next.map(features));
        });
        results
    }
}

/// Something of each row of each block: `[rows, width]`, one block after the other.
struct Numbers {
    data: Kept,
    /// Rows and width of each block.
    sizes: Vec<(usize, usize)>,
    starts: Vec<usize>,
}

impl Numbers {
    /// To be written, for blocks of these rows and widths.
    fn new(sizes: impl Iterator<Item = (usize, usize)>) -> Self {
        let sizes: Vec<_> = sizes.collect();
        let mut starts = Vec::with_capacity(sizes.len());
        let mut len = 0;
        for (rows, width) in &sizes {
            starts.push(len);
            len += rows * width;
        }
        Self { data: Kept::new(len), sizes, starts }
    }

    fn of(&self, block: usize) -> RowsRef<'_> {
        let (start, (rows, width)) = (self.starts[block], self.sizes[block]);
        RowsRef { data: &self.data[start..start + rows * width], rows, width, stride: width }
    }

    fn outputs(&mut self) -> Vec<Output<'_>> {
        let mut rest = &mut *self.data;
        let mut outputs = Vec::with_capacity(self.sizes.len());
        for &(rows, width) in &self.sizes {
            let (block, others) = std::mem::take(&mut rest).split_at_mut(rows * width);
            outputs.push(Output::contiguous(block, width));
            rest = others;
        }
        outputs
    }
}

vectorized! {
    /// `gate[i] = silu(gate[i]) * up[i]`.
    fn silu_mul(gate: &mut [f32], up: &[f32]) {
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = *gate / (1.0 + exp(-*gate)) * up;
        }
    }
}

/// Each token's results, from the first block to the last, whatever else is in the batch.
fn add(results: &Numbers, blocks: &[Block<'_>], out: &mut RowsMut<'_>) {
    // Of each token its results, one token after the other: (block, row there).
    let mut ends = vec![0; out.rows];
    blocks.iter().flat_map(|block| block.rows).for_each(|token| ends[*token as usize] += 1);
    let mut places = vec![(0, 0); ends.iter().sum()];
    let mut start = 0;
    for end in &mut ends {
        start += std::mem::replace(end, start);
    }
    for (index, block) in blocks.iter().enumerate() {
        for (row, token) in block.rows.iter().enumerate() {
            let place = &mut ends[*token as usize];
            places[*place] = (index, row);
            *place += 1;
        }
    }
    let (width, stride) = (out.width, out.stride.max(1));
    let work = places.len() * width * threads::ELEMENT;
    threads::chunks_mut(out.data, TOKENS * stride, work, |chunk, out| {
        for (token, out) in out.chunks_mut(stride).enumerate() {
            let token = chunk * TOKENS + token;
            out[..width].fill(0.0);
            let first = if token == 0 { 0 } else { ends[token - 1] };
            for &(index, row) in &places[first..ends[token]] {
                add_scaled(&mut out[..width], blocks[index].shares[row], results.of(index).row(row));
            }
        }
    });
}
