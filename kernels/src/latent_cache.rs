//! The paged cache of multi-head latent attention: for each token the normalized latent, then the rotated key part.
//!
//! A cache tensor is `[blocks, block_size, latent + rope]`, f32 or bf16, or `[blocks, block_size, bytes]` of u8, where a
//! token's bytes are those of `latent_fp8.rs`. A sequence's position `p` lies in slot `p % block_size` of block
//! `block_table[p / block_size]`.

use std::ops::Range;

use candle_core::{CpuStorage, DType, InplaceOp3, Layout, Result, Tensor, bail};
use half::bf16;

use crate::{
    MlaShape,
    bf16_rows::nearest_bf16,
    cpu::{CacheNumbers, RowsRef, expect_size},
    latent_fp8::Fp8Entry,
    vectorized::vectorized,
};

/// Consecutive tokens of one sequence, and where its cache lies.
#[derive(Clone, Copy, Debug)]
pub struct PagedSpan<'a> {
    /// Blocks of the sequence, in order.
    pub block_table: &'a [u32],
    /// Position of the first token.
    pub start: usize,
    /// Number of tokens.
    pub rows: usize,
}

impl PagedSpan<'_> {
    /// Positions that the last of these tokens sees: all before it and its own.
    pub(crate) fn context(&self) -> usize {
        self.start + self.rows
    }
}

/// Bytes of a token in a cache of 8 bits: what the last dimension of its tensor must be.
pub const fn fp8_entry_bytes(latent: usize, rope: usize) -> usize {
    Fp8Entry::new(latent, rope).bytes()
}

/// Stores `latent[t]` and `k_pe[t]` in the slots of the spans' tokens, in row order. `latent` is f32 `[tokens, latent]`,
/// `k_pe` f32 `[tokens, rope]`, `cache` as above.
///
/// # Errors
/// When the spans do not cover the rows exactly or a block table is too short or names a block that does not exist.
pub fn write_latents(latent: &Tensor, k_pe: &Tensor, spans: &[PagedSpan<'_>], cache: &Tensor) -> Result<()> {
    cache.inplace_op3(latent, k_pe, &WriteLatents { spans })
}

/// Reference of [`write_latents`]: the cache with one `slice_assign` a token.
pub fn write_latents_reference(
    latent: &Tensor,
    k_pe: &Tensor,
    spans: &[PagedSpan<'_>],
    cache: &Tensor,
) -> Result<Tensor> {
    let block_size = cache.dim(1)?;
    let entries = match cache.dtype() {
        DType::U8 => fp8_entries_reference(latent, k_pe)?, // [tokens, bytes]
        dtype => Tensor::cat(&[latent, k_pe], 1)?.to_dtype(dtype)?, // [tokens, latent + rope]
    };
    let positions =
        spans.iter().flat_map(|span| (span.start..span.context()).map(move |position| (span, position)));
    let mut cache = cache.copy()?;
    for (row, (span, position)) in positions.enumerate() {
        let (block, slot) = (span.block_table[position / block_size] as usize, position % block_size);
        let entry = entries.narrow(0, row, 1)?.unsqueeze(0)?;
        cache = cache.slice_assign(&[block..=block, slot..=slot, 0..=entry.dim(2)? - 1], &entry)?;
    }
    Ok(cache)
}

fn fp8_entries_reference(latent: &Tensor, k_pe: &Tensor) -> Result<Tensor> {
    let entry = Fp8Entry::new(latent.dim(1)?, k_pe.dim(1)?);
    let rows = latent.to_vec2::<f32>()?.into_iter().zip(k_pe.to_vec2::<f32>()?);
    let mut bytes = vec![0; latent.dim(0)? * entry.bytes()];
    for ((latent, k_pe), out) in rows.zip(bytes.chunks_exact_mut(entry.bytes())) {
        entry.encode_reference(&latent, &k_pe, out);
    }
    Tensor::from_vec(bytes, (latent.dim(0)?, entry.bytes()), latent.device())
}

/// The cached entries of positions `0..len` as f32 `[len, latent + rope]`, by candle's `index_select`.
/// A step of the attention references.
pub fn read_latents_reference(
    cache: &Tensor,
    block_table: &[u32],
    len: usize,
    shape: MlaShape,
) -> Result<Tensor> {
    let block_size = cache.dim(1)?;
    let slots: Vec<u32> = (0..len)
        .map(|position| {
            block_table[position / block_size] * block_size as u32 + (position % block_size) as u32
        })
        .collect();
    let entries = cache.flatten(0, 1)?.index_select(&Tensor::new(slots, cache.device())?, 0)?;
    if entries.dtype() != DType::U8 {
        return entries.to_dtype(DType::F32);
    }
    let entry = Fp8Entry::new(shape.latent, shape.rope);
    let numbers: Vec<f32> =
        entries.to_vec2::<u8>()?.iter().flat_map(|bytes| entry.decode_reference(bytes)).collect();
    Tensor::from_vec(numbers, (len, shape.latent + shape.rope), cache.device())
}

/// Shape of a cache tensor.
#[derive(Clone, Copy)]
struct CacheShape {
    blocks: usize,
    block_size: usize,
    /// Numbers of an entry as they are stored: bytes in a cache of 8 bits.
    width: usize,
}

impl CacheShape {
    fn new(op: &str, layout: &Layout) -> Result<Self> {
        let &[blocks, block_size, width] = layout.dims() else {
            bail!("{op}: the cache must be [blocks, block_size, width], not {:?}", layout.dims());
        };
        Ok(Self { blocks, block_size, width })
    }

    fn check(self, op: &str, span: PagedSpan<'_>) -> Result<()> {
        let needed = span.context().div_ceil(self.block_size.max(1));
        if span.block_table.len() < needed {
            let (context, len) = (span.context(), span.block_table.len());
            bail!("{op}: {context} positions need {needed} blocks; the block table has {len}");
        }
        if let Some(block) = span.block_table[..needed].iter().find(|block| **block as usize >= self.blocks) {
            bail!("{op}: block {block} of {}", self.blocks);
        }
        Ok(())
    }

    /// Index of a position's first number.
    fn offset(self, block_table: &[u32], position: usize) -> usize {
        let slot =
            block_table[position / self.block_size] as usize * self.block_size + position % self.block_size;
        slot * self.width
    }
}

/// A cache that attention reads.
pub(crate) struct LatentCache<'a> {
    numbers: CacheNumbers<'a>,
    shape: CacheShape,
    latent: usize,
    rope: usize,
}

impl<'a> LatentCache<'a> {
    pub(crate) fn new(op: &str, cache: (&'a CpuStorage, &Layout), mla: MlaShape) -> Result<Self> {
        let MlaShape { latent, rope, .. } = mla;
        let (shape, numbers) = (CacheShape::new(op, cache.1)?, CacheNumbers::new(op, cache)?);
        expect_size(op, "width of the cache", shape.width, stored_width(cache.0, latent, rope))?;
        Ok(Self { numbers, shape, latent, rope })
    }

    /// Numbers of one position, once read.
    pub(crate) fn width(&self) -> usize {
        self.latent + self.rope
    }

    /// Numbers of a position's latent, with which it begins.
    pub(crate) fn latent(&self) -> usize {
        self.latent
    }

    pub(crate) fn is_bf16(&self) -> bool {
        matches!(self.numbers, CacheNumbers::Bf16(_))
    }

    /// Fails unless every position that `span` needs has a block.
    pub(crate) fn check(&self, op: &str, span: PagedSpan<'_>) -> Result<()> {
        self.shape.check(op, span)
    }

    /// The entries of `positions`, each `[width]`: where they lie, or widened into `buffer`. The span they belong to was
    /// checked.
    pub(crate) fn entries<'b>(
        &self,
        block_table: &[u32],
        positions: Range<usize>,
        buffer: &'b mut Vec<f32>,
    ) -> Vec<&'b [f32]>
    where
        'a: 'b,
    {
        if let CacheNumbers::F32(data) = self.numbers {
            let entry = |position| &data[self.shape.offset(block_table, position)..][..self.shape.width];
            return positions.map(entry).collect();
        }
        buffer.resize(positions.len() * self.width(), 0.0);
        self.read(block_table, positions, buffer);
        buffer.chunks_exact(self.width()).collect()
    }

    /// The entries of `positions` where they lie, if they are bf16: those that follow each other in memory together. The span they
    /// belong to was checked.
    pub(crate) fn bf16_runs<'t>(
        &self,
        (block_table, mut positions): (&'t [u32], Range<usize>),
    ) -> impl Iterator<Item = &'a [bf16]> + use<'_, 't, 'a> {
        std::iter::from_fn(move || {
            if positions.is_empty() {
                return None;
            }
            let run = self.bf16_run(block_table, positions.clone())?;
            positions.start += run.len() / self.shape.width;
            Some(run)
        })
    }

    /// The first of [`Self::bf16_runs`]. There must be positions.
    pub(crate) fn bf16_run(&self, block_table: &[u32], positions: Range<usize>) -> Option<&'a [bf16]> {
        let CacheNumbers::Bf16(data) = self.numbers else { return None };
        let CacheShape { block_size, width, .. } = self.shape;
        let mut last = positions.start / block_size;
        while (last + 1) * block_size < positions.end && block_table[last + 1] == block_table[last] + 1 {
            last += 1;
        }
        let count = positions.end.min((last + 1) * block_size) - positions.start;
        Some(&data[self.shape.offset(block_table, positions.start)..][..count * width])
    }

    /// Copies the entries of `positions` to `out`, `[positions, width]`. The span they belong to was checked.
    pub(crate) fn read(&self, block_table: &[u32], positions: Range<usize>, out: &mut [f32]) {
        let width = self.shape.width;
        for (position, out) in positions.zip(out.chunks_exact_mut(self.width())) {
            let start = self.shape.offset(block_table, position);
            match self.numbers {
                CacheNumbers::F32(data) => out.copy_from_slice(&data[start..start + width]),
                CacheNumbers::Bf16(data) => widen_bf16(&data[start..start + width], out),
                CacheNumbers::Fp8(data) => {
                    Fp8Entry::new(self.latent, self.rope).decode(&data[start..start + width], out);
                }
            }
        }
    }
}

/// What the last dimension of a cache must be.
fn stored_width(cache: &CpuStorage, latent: usize, rope: usize) -> usize {
    match cache {
        CpuStorage::U8(_) => fp8_entry_bytes(latent, rope),
        _ => latent + rope,
    }
}

vectorized! {
    /// By moving bits: the library's conversion looks for NaN, number by number.
    fn widen_bf16(x: &[bf16], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = f32::from_bits(u32::from(x.to_bits()) << 16);
        }
    }
}

vectorized! {
    /// To the nearest, ties to even, as the library's conversion, which goes number by number.
    fn round_bf16(x: &[f32], out: &mut [bf16]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = bf16::from_bits(nearest_bf16(*x));
        }
    }
}

struct WriteLatents<'a> {
    spans: &'a [PagedSpan<'a>],
}

impl InplaceOp3 for WriteLatents<'_> {
    fn name(&self) -> &'static str {
        "write_latents"
    }

    fn cpu_fwd(
        &self,
        cache: &mut CpuStorage,
        layout: &Layout,
        latent: &CpuStorage,
        latent_layout: &Layout,
        k_pe: &CpuStorage,
        k_pe_layout: &Layout,
    ) -> Result<()> {
        let shape = CacheShape::new(self.name(), layout)?;
        let latent = RowsRef::new(self.name(), (latent, latent_layout))?;
        let k_pe = RowsRef::new(self.name(), (k_pe, k_pe_layout))?;
        let rows: usize = self.spans.iter().map(|span| span.rows).sum();
        expect_size(self.name(), "rows of the latents", latent.rows, rows)?;
        expect_size(self.name(), "rows of k_pe", k_pe.rows, rows)?;
        let width = stored_width(cache, latent.width, k_pe.width);
        expect_size(self.name(), "width of the cache", shape.width, width)?;
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("write_latents: the cache must be contiguous");
        };
        let mut row = 0;
        for span in self.spans {
            shape.check(self.name(), *span)?;
            for position in span.start..span.context() {
                let offset = start + shape.offset(span.block_table, position);
                let slot = offset..offset + shape.width;
                match cache {
                    CpuStorage::F32(data) => {
                        let (latent_slot, k_pe_slot) = data[..end][slot].split_at_mut(latent.width);
                        latent_slot.copy_from_slice(latent.row(row));
                        k_pe_slot.copy_from_slice(k_pe.row(row));
                    }
                    CpuStorage::BF16(data) => {
                        let (latent_slot, k_pe_slot) = data[..end][slot].split_at_mut(latent.width);
                        round_bf16(latent.row(row), latent_slot);
                        round_bf16(k_pe.row(row), k_pe_slot);
                    }
                    CpuStorage::U8(data) => Fp8Entry::new(latent.width, k_pe.width).encode(
                        latent.row(row),
                        k_pe.row(row),
                        &mut data[..end][slot],
                    ),
                    _ => bail!("write_latents: the cache must be f32, bf16 or 8 bits"),
                }
                row += 1;
            }
        }
        Ok(())
    }
}
