//! Token ids to rows of the embedding table, read in the format they are stored in.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor, bail};

use crate::{
    Weight,
    cpu::{RowsMut, expect_size},
    linear::dequantize,
    weight_rows::WeightRows,
};

/// `out[t] = table[ids[t]]`. `table` is `[vocabulary, hidden]`, `out` f32 `[tokens, hidden]`.
///
/// # Errors
/// When an id is not in the table or `out` has another shape.
pub fn embed(table: &Weight, ids: &[u32], out: &Tensor) -> Result<()> {
    out.inplace_op1(&Embed { table, ids })
}

/// Reference of [`embed`]: the whole table in f32 and `index_select`.
pub fn embed_reference(table: &Weight, ids: &[u32]) -> Result<Tensor> {
    let table = dequantize(table)?;
    table.index_select(&Tensor::new(ids, table.device())?, 0)
}

struct Embed<'a> {
    table: &'a Weight,
    ids: &'a [u32],
}

impl InplaceOp1 for Embed<'_> {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn cpu_fwd(&self, out: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let table = WeightRows::new(self.table)?;
        let mut out = RowsMut::new(self.name(), out, layout)?;
        expect_size(self.name(), "rows of the output", out.rows, self.ids.len())?;
        expect_size(self.name(), "width of the output", out.width, table.columns())?;
        for (row, &id) in self.ids.iter().enumerate() {
            if id as usize >= table.rows() {
                bail!("embed: token id {id} is outside the vocabulary of {}", table.rows());
            }
            table.read(id as usize, out.row(row));
        }
        Ok(())
    }
}
