//! Gated feed-forward blocks: a dense layer's, the shared experts, and all routed experts of a step at once.
//!
//! `out[t] += share · down(silu(gate(x[t])) * up(x[t]))` for each block and each of its tokens. All blocks go through
//! each phase together, so that threads share the work of a step evenly, whatever the router chose, and meet twice a
//! layer instead of three times an expert.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};
use rayon::prelude::*;

use crate::{
    Activations, Weight,
    cpu::{PARALLEL_WORK, RowsMut, RowsRef, expect_size},
    product::{Inputs, multiply},
    quantized_rows::QuantizedRows,
    weight_rows::WeightRows,
};

/// Output features that a thread computes at a time.
const PART: usize = 64;

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

/// Adds the results of `blocks` to `out`, in their order. `x` and `out` are f32 `[tokens, hidden]`.
///
/// # Errors
/// When the sizes of weights, rows and shares contradict each other.
pub fn gated_mlps(x: &Tensor, blocks: &[GatedMlp<'_>], activations: Activations, out: &Tensor) -> Result<()> {
    out.inplace_op2(x, &GatedMlps { blocks, activations })
}

/// Reference of [`gated_mlps`]: one block after the other, in other references and candle's own ops.
pub fn gated_mlps_reference(x: &Tensor, blocks: &[GatedMlp<'_>], out: &Tensor) -> Result<Tensor> {
    use crate::reference::{gather_rows, linear};
    blocks.iter().try_fold(out.clone(), |out, block| {
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
        let work: usize = blocks.iter().map(|block| block.rows.len() * block.inner() * x.width * 3).sum();
        let threads = if work < PARALLEL_WORK { Threads::Caller } else { Threads::Pool };
        let products = self.gate(&x, &blocks, threads);
        let results = self.down(products, &blocks, threads);
        add(&results, &blocks, &mut out, threads);
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
}

/// Who works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Threads {
    Caller,
    Pool,
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

    /// `silu(gate(x)) * up(x)` of each block, `[inner, rows]`.
    fn gate(&self, x: &RowsRef<'_>, blocks: &[Block<'_>], threads: Threads) -> Vec<Vec<f32>> {
        let takes =
            |block: &Block<'_>| block.gate.takes(self.activations) || block.up.takes(self.activations);
        let quantized = blocks.iter().any(takes).then(|| QuantizedRows::new(*x));
        let inputs: Vec<Inputs<'_>> = blocks
            .iter()
            .map(|block| {
                let quantized = quantized.as_ref().filter(|_| takes(block));
                Inputs::new(*x, quantized, block.rows.iter().map(|row| *row as usize))
            })
            .collect();
        let mut products: Vec<Vec<f32>> =
            blocks.iter().map(|block| vec![0.0; block.inner() * block.rows.len()]).collect();
        in_parts(&mut products, blocks, threads, |index, first, out| {
            let (block, x) = (&blocks[index], &inputs[index]);
            let features = first..first + out.len() / x.len();
            let mut up = vec![0.0; out.len()];
            multiply(x, block.gate, features.clone(), out);
            multiply(x, block.up, features, &mut up);
            for (gate, up) in out.iter_mut().zip(up) {
                *gate = *gate / (1.0 + (-*gate).exp()) * up;
            }
        });
        products
    }

    /// `down` of each block's product, `[hidden, rows]`.
    fn down(&self, products: Vec<Vec<f32>>, blocks: &[Block<'_>], threads: Threads) -> Vec<Vec<f32>> {
        let prepare = |(product, block): (Vec<f32>, &Block<'_>)| {
            let product = transposed(product, block.rows.len()); // [rows, inner]
            let rows = rows_of(&product, block);
            let quantized = block.down.takes(self.activations).then(|| QuantizedRows::new(rows));
            (product, quantized)
        };
        let prepared: Vec<(Vec<f32>, Option<QuantizedRows>)> = match threads {
            Threads::Caller => products.into_iter().zip(blocks).map(prepare).collect(),
            Threads::Pool => products.into_par_iter().zip(blocks).map(prepare).collect(),
        };
        let inputs: Vec<Inputs<'_>> = prepared
            .iter()
            .zip(blocks)
            .map(|((product, quantized), block)| {
                Inputs::new(rows_of(product, block), quantized.as_ref(), 0..block.rows.len())
            })
            .collect();
        let mut results: Vec<Vec<f32>> =
            blocks.iter().map(|block| vec![0.0; block.down.rows() * block.rows.len()]).collect();
        in_parts(&mut results, blocks, threads, |index, first, out| {
            let x = &inputs[index];
            multiply(x, blocks[index].down, first..first + out.len() / x.len(), out);
        });
        results
    }
}

/// Calls `run` with the number of a block, a first feature and that feature's place in the block's output, for all.
fn in_parts(
    outputs: &mut [Vec<f32>],
    blocks: &[Block<'_>],
    threads: Threads,
    run: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let parts = outputs.iter_mut().zip(blocks).enumerate().flat_map(|(index, (output, block))| {
        let parts = output.chunks_mut(PART * block.rows.len()).enumerate();
        parts.map(move |(part, out)| (index, part * PART, out))
    });
    match threads {
        Threads::Caller => parts.for_each(|(index, first, out)| run(index, first, out)),
        Threads::Pool => {
            let parts: Vec<_> = parts.collect();
            parts.into_par_iter().for_each(|(index, first, out)| run(index, first, out));
        }
    }
}

/// Each token's results, from the first block to the last, whatever else is in the batch.
fn add(results: &[Vec<f32>], blocks: &[Block<'_>], out: &mut RowsMut<'_>, threads: Threads) {
    let mut places = vec![Vec::new(); out.rows]; // of each token: (block, its row there)
    for (index, block) in blocks.iter().enumerate() {
        for (row, token) in block.rows.iter().enumerate() {
            places[*token as usize].push((index, row));
        }
    }
    let width = out.width;
    let add = |(token, out): (usize, &mut [f32])| {
        for &(index, row) in &places[token] {
            let (block, results) = (&blocks[index], &results[index]);
            let share = block.shares[row];
            for (out, results) in out[..width].iter_mut().zip(results.chunks_exact(block.rows.len())) {
                *out += share * results[row];
            }
        }
    };
    let rows = out.data.chunks_mut(out.stride.max(1)).enumerate();
    match threads {
        Threads::Caller => rows.for_each(add),
        Threads::Pool => rows.par_bridge().for_each(add),
    }
}

fn rows_of<'a>(product: &'a [f32], block: &Block<'_>) -> RowsRef<'a> {
    let width = block.inner();
    RowsRef { data: product, rows: block.rows.len(), width, stride: width }
}

/// `[inner, rows]` as `[rows, inner]`.
fn transposed(product: Vec<f32>, rows: usize) -> Vec<f32> {
    if rows == 1 {
        return product;
    }
    let inner = product.len() / rows;
    let mut out = vec![0.0; product.len()];
    for (number, row) in out.chunks_exact_mut(inner.max(1)).enumerate() {
        for (out, column) in row.iter_mut().zip(product.chunks_exact(rows)) {
            *out = column[number];
        }
    }
    out
}
