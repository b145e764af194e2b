//! Parts of a weight, for ranks that hold a part of each layer.

use std::{ops::Range, sync::Arc};

use candle_core::{Result, bail};

use crate::{SharedBytes, Weight, WeightData};

/// How numbers or scales of a weight are laid out: tile after tile along the columns, then the next row of tiles.
#[derive(Clone, Copy)]
struct Tiles {
    /// Rows of the weight in a tile.
    rows: usize,
    /// Columns of the weight in a tile.
    columns: usize,
    bytes: usize,
}

impl Weight {
    /// The weight of outputs `rows` and inputs `columns` alone. As long as `columns` are all there are, nothing is copied.
    ///
    /// # Errors
    /// When a range reaches out of the weight, or cuts through numbers that share a word or a scale.
    pub fn part(&self, rows: Range<usize>, columns: Range<usize>) -> Result<Self> {
        let cut = |bytes: &SharedBytes, of, rows, columns, size| {
            self.cut(bytes, Tiles { rows, columns, bytes: size }, of)
        };
        let of = (&rows, &columns);
        let data = match &self.data {
            WeightData::Dense { dtype, bytes } => {
                WeightData::Dense { dtype: *dtype, bytes: cut(bytes, of, 1, 1, dtype.size())? }
            }
            WeightData::Int4Group32 { packed, scales, scale_dtype } => WeightData::Int4Group32 {
                packed: cut(packed, of, 1, 8, 4)?,
                scales: cut(scales, of, 1, 32, scale_dtype.size())?,
                scale_dtype: *scale_dtype,
            },
            WeightData::Int8Group32 { codes, scales } => WeightData::Int8Group32 {
                codes: cut(codes, of, 1, 128, 128)?,
                scales: cut(scales, of, 1, 128, 8)?,
            },
            WeightData::Fp8Block128 { codes, scale_inv } => WeightData::Fp8Block128 {
                codes: cut(codes, of, 1, 1, 1)?,
                scale_inv: cut(scale_inv, of, 128, 128, 4)?,
            },
        };
        Ok(Self { out_features: rows.len(), in_features: columns.len(), data })
    }

    fn cut(
        &self,
        bytes: &SharedBytes,
        tiles: Tiles,
        (rows, columns): (&Range<usize>, &Range<usize>),
    ) -> Result<SharedBytes> {
        let row_bytes = self.in_features.div_ceil(tiles.columns) * tiles.bytes;
        let rows = whole_tiles("rows", rows, tiles.rows, self.out_features)?;
        let columns = whole_tiles("columns", columns, tiles.columns, self.in_features)?;
        let columns = columns.start * tiles.bytes..columns.end * tiles.bytes;
        let cut = bytes.slice(rows.start * row_bytes..rows.end * row_bytes);
        let Some(cut) = cut else { bail!("a weight has fewer bytes than its shape needs") };
        if columns.len() == row_bytes {
            return Ok(cut);
        }
        let mut copy = Vec::with_capacity(rows.len() * columns.len());
        for row in cut.chunks_exact(row_bytes) {
            copy.extend_from_slice(&row[columns.clone()]);
        }
        Ok(SharedBytes::new(Arc::new(copy)))
    }
}

/// `range`, which lies below `len`, in tiles of `size`. The last tile may be incomplete.
fn whole_tiles(what: &str, range: &Range<usize>, size: usize, len: usize) -> Result<Range<usize>> {
    let is_edge = |end: usize| end.is_multiple_of(size) || end == len;
    if range.start > range.end || range.end > len || !is_edge(range.start) || !is_edge(range.end) {
        bail!("{what} {range:?} of {len} cannot be cut out: scales or words are shared by {size} of them");
    }
    Ok(range.start.div_ceil(size)..range.end.div_ceil(size))
}
