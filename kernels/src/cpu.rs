//! How ops see candle's CPU storage: tensors as rows of f32, with an arbitrary distance between rows.

#![allow(unsafe_code, reason = "blocks are written before they count")]

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};
use half::bf16;

use crate::{threads, vectorized::add_scaled};

/// Rows that a thread takes at a time in ops that go through them once.
const ROWS: usize = 16;

/// The last dimension is a row; all others together count rows.
struct RowLayout {
    rows: usize,
    width: usize,
    stride: usize,
    start: usize,
    end: usize,
}

impl RowLayout {
    fn new(op: &str, layout: &Layout) -> Result<Self> {
        let (dims, strides) = (layout.dims(), layout.stride());
        let Some((&width, leading)) = dims.split_last() else {
            bail!("{op}: a scalar has no rows");
        };
        let rows: usize = leading.iter().product();
        if width > 1 && strides[leading.len()] != 1 {
            bail!("{op}: numbers of a row must lie side by side; shape {dims:?} has strides {strides:?}");
        }
        // The innermost dimension longer than one sets the distance; the others must continue it.
        let mut stride = None;
        let mut expected = width;
        for (&size, &step) in leading.iter().zip(strides).rev().filter(|(size, _)| **size != 1) {
            if stride.is_some() && step != expected {
                bail!("{op}: rows must be equally spaced; shape {dims:?} has strides {strides:?}");
            }
            stride.get_or_insert(step);
            expected = step * size;
        }
        let stride = stride.unwrap_or(width);
        let start = layout.start_offset();
        let end = if rows == 0 { start } else { start + (rows - 1) * stride + width };
        Ok(Self { rows, width, stride, start, end })
    }
}

/// A tensor that an op reads.
#[derive(Clone, Copy)]
pub(crate) struct RowsRef<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) stride: usize,
}

impl<'a> RowsRef<'a> {
    pub(crate) fn new(op: &str, (storage, layout): (&'a CpuStorage, &Layout)) -> Result<Self> {
        let shape = RowLayout::new(op, layout)?;
        let data = &storage.as_slice::<f32>()?[shape.start..shape.end];
        Ok(Self { data, rows: shape.rows, width: shape.width, stride: shape.stride })
    }

    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..self.width]
    }

    /// Blocks of so many columns, `[rows, blocks]`, each filled from a row's numbers, the last ones perhaps from fewer; on all threads
    /// when there are enough numbers.
    pub(crate) fn in_blocks<B: Clone + Send + Sync>(
        &self,
        columns: usize,
        empty: &B,
        fill: impl Fn(&[f32], &mut B) + Sync,
    ) -> Vec<B> {
        let row_blocks = self.width.div_ceil(columns);
        let count = self.rows * row_blocks;
        // Nothing is written beforehand: that would be one thread's work.
        let mut blocks = Vec::with_capacity(count);
        let (row_blocks, work) = (row_blocks.max(1), self.rows * self.width * threads::ELEMENT);
        threads::chunks_mut(
            &mut blocks.spare_capacity_mut()[..count],
            ROWS * row_blocks,
            work,
            |chunk, places| {
                for (row, places) in places.chunks_exact_mut(row_blocks).enumerate() {
                    let numbers = self.row(chunk * ROWS + row).chunks(columns);
                    for (numbers, place) in numbers.zip(places) {
                        fill(numbers, place.write(empty.clone()));
                    }
                }
            },
        );
        // SAFETY: all of them are written: each row has as many blocks as pieces.
        unsafe { blocks.set_len(count) };
        blocks
    }
}

/// A tensor that an op writes.
pub(crate) struct RowsMut<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) stride: usize,
}

impl<'a> RowsMut<'a> {
    pub(crate) fn new(op: &str, storage: &'a mut CpuStorage, layout: &Layout) -> Result<Self> {
        let shape = RowLayout::new(op, layout)?;
        if shape.stride < shape.width {
            bail!(
                "{op}: cannot write to overlapping rows (width {}, distance {})",
                shape.width,
                shape.stride
            );
        }
        let CpuStorage::F32(data) = storage else { bail!("{op}: the output must be f32") };
        let data = &mut data[shape.start..shape.end];
        Ok(Self { data, rows: shape.rows, width: shape.width, stride: shape.stride })
    }

    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.stride..][..self.width]
    }

    /// Calls `run` with the number of each row and the row, on all threads when there are enough numbers.
    pub(crate) fn for_each_row(self, run: impl Fn(usize, &mut [f32]) + Sync) {
        let Self { data, rows, width, stride } = self;
        let (stride, work) = (stride.max(1), rows * width * threads::ELEMENT);
        threads::chunks_mut(data, ROWS * stride, work, |chunk, data| {
            for (row, numbers) in data.chunks_mut(stride).enumerate() {
                run(chunk * ROWS + row, &mut numbers[..width]);
            }
        });
    }
}

/// Numbers of a latent cache, in any of its formats.
pub(crate) enum CacheNumbers<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    Fp8(&'a [u8]),
}

impl<'a> CacheNumbers<'a> {
    pub(crate) fn new(op: &str, (storage, layout): (&'a CpuStorage, &Layout)) -> Result<Self> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("{op}: the cache must be contiguous");
        };
        match storage {
            CpuStorage::F32(data) => Ok(Self::F32(&data[start..end])),
            CpuStorage::BF16(data) => Ok(Self::Bf16(&data[start..end])),
            CpuStorage::U8(data) => Ok(Self::Fp8(&data[start..end])),
            _ => bail!("{op}: the cache must be f32, bf16 or 8 bits"),
        }
    }
}

/// Fails unless `found == expected`; `what` names the quantity.
pub(crate) fn expect_size(op: &str, what: &str, found: usize, expected: usize) -> Result<()> {
    if found != expected {
        bail!("{op}: {what} is {found}, expected {expected}");
    }
    Ok(())
}

/// `y += x`, element by element.
pub fn add_assign(y: &Tensor, x: &Tensor) -> Result<()> {
    y.inplace_op2(x, &AddAssign)
}

/// Reference of [`add_assign`]: the sum.
pub fn add_assign_reference(y: &Tensor, x: &Tensor) -> Result<Tensor> {
    y + x
}

struct AddAssign;

impl InplaceOp2 for AddAssign {
    fn name(&self) -> &'static str {
        "add_assign"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, layout: &Layout, x: &CpuStorage, x_layout: &Layout) -> Result<()> {
        let x = RowsRef::new(self.name(), (x, x_layout))?;
        let y = RowsMut::new(self.name(), y, layout)?;
        expect_size(self.name(), "rows of x", x.rows, y.rows)?;
        expect_size(self.name(), "width of x", x.width, y.width)?;
        y.for_each_row(|row, y| add_scaled(y, 1.0, x.row(row)));
        Ok(())
    }
}
