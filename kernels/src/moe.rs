//! Which tokens go to which experts, and picking rows.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};

use crate::cpu::{RowsMut, RowsRef, expect_size};

/// The chosen experts of a batch, turned around: for each expert, its tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpertPlan {
    /// Experts that have tokens, in ascending order, each with its range in `rows` and `weights`.
    pub experts: Vec<(usize, std::ops::Range<usize>)>,
    /// Token rows, grouped by expert, ascending inside each group.
    pub rows: Vec<u32>,
    /// What each of those rows counts.
    pub weights: Vec<f32>,
}

impl ExpertPlan {
    /// `chosen` and `weights` are `[tokens, k]` in row order. Tokens are visited in order, so an expert's sum over a
    /// token's experts always runs from the lowest expert to the highest, whatever else is in the batch.
    ///
    /// # Errors
    /// When an expert's number is not below `experts` or the lists differ in length.
    pub fn new(chosen: &[u32], weights: &[f32], k: usize, experts: usize) -> Result<Self> {
        expect_size("expert plan", "weights", weights.len(), chosen.len())?;
        let mut ends = vec![0; experts];
        for &expert in chosen {
            match ends.get_mut(expert as usize) {
                Some(count) => *count += 1,
                None => bail!("expert plan: expert {expert} of {experts}"),
            }
        }
        let mut plan =
            Self { experts: Vec::new(), rows: vec![0; chosen.len()], weights: vec![0.0; chosen.len()] };
        let mut start = 0;
        for (expert, end) in ends.iter_mut().enumerate() {
            let count = std::mem::replace(end, start);
            if count > 0 {
                plan.experts.push((expert, start..start + count));
            }
            start += count;
        }
        // `ends` now holds the next free place of each expert.
        for (index, (&expert, &weight)) in chosen.iter().zip(weights).enumerate() {
            let place = &mut ends[expert as usize];
            plan.rows[*place] = (index / k) as u32;
            plan.weights[*place] = weight;
            *place += 1;
        }
        Ok(plan)
    }
}

/// `out[i] = x[rows[i]]`. f32 `[tokens, width]` to `[rows.len(), width]`.
pub fn gather_rows(x: &Tensor, rows: &[u32], out: &Tensor) -> Result<()> {
    out.inplace_op2(x, &GatherRows { rows })
}

/// Reference of [`gather_rows`]: candle's `index_select`.
pub fn gather_rows_reference(x: &Tensor, rows: &[u32]) -> Result<Tensor> {
    x.index_select(&Tensor::new(rows, x.device())?, 0)
}

struct GatherRows<'a> {
    rows: &'a [u32],
}

impl InplaceOp2 for GatherRows<'_> {
    fn name(&self) -> &'static str {
        "gather_rows"
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
        expect_size(self.name(), "rows of the output", out.rows, self.rows.len())?;
        expect_size(self.name(), "width of the output", out.width, x.width)?;
        for (row, &source) in self.rows.iter().enumerate() {
            check_row(self.name(), source, x.rows)?;
            out.row(row).copy_from_slice(x.row(source as usize));
        }
        Ok(())
    }
}

fn check_row(op: &str, row: u32, rows: usize) -> Result<()> {
    if row as usize >= rows {
        bail!("{op}: row {row} of {rows}");
    }
    Ok(())
}
