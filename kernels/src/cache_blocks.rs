//! The memory of a cache, and its blocks as bytes: how they leave it for another tier of memory, and come back.

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Storage, Tensor, bail};
use half::{bf16, slice::HalfFloatSliceExt, vec::HalfBitsVecExt};

use crate::pages::{prefer_large_pages, provide_pages, yield_to_others};

/// Bytes that the system provides while nobody writes to the cache: a large page.
const PIECE: usize = 2 << 20;

/// Zeros of `shape`, on large pages if the system has them: attention reads all over the cache, and looks up fewer addresses so.
///
/// # Errors
/// When the tensor cannot be made.
pub fn zeroed_cache(shape: (usize, usize, usize), dtype: DType) -> Result<Tensor> {
    let cache = if dtype == DType::BF16 {
        // As bits, of which the system gives zeros when they are first touched: candle would write them all.
        let zeros: Vec<bf16> = vec![0_u16; shape.0 * shape.1 * shape.2].reinterpret_into();
        Tensor::from_vec(zeros, shape, &Device::Cpu)?
    } else {
        Tensor::zeros(shape, dtype, &Device::Cpu)?
    };
    with_bytes(&cache, prefer_large_pages);
    Ok(cache)
}

/// Has the system provide the memory of caches of one size, from the first blocks to the last, at the pace of a thread that gives way
/// to all others.
pub fn provide_caches(caches: &[Tensor]) {
    yield_to_others();
    let mut start = 0;
    loop {
        let mut is_over = true;
        for cache in caches {
            with_bytes(cache, |bytes| {
                let end = bytes.len().min(start + PIECE);
                is_over &= end == bytes.len();
                provide_pages(&bytes[start.min(end)..end]);
            });
        }
        if is_over {
            break;
        }
        start += PIECE;
    }
}

/// Calls `run` with the cache's memory, if it is the CPU's. Nobody writes to it meanwhile.
fn with_bytes(cache: &Tensor, run: impl FnOnce(&[u8])) {
    if let Storage::Cpu(storage) = &*cache.storage_and_layout().0 {
        match storage {
            CpuStorage::F32(data) => run(bytemuck::cast_slice(data)),
            CpuStorage::BF16(data) => run(bytemuck::cast_slice(data.reinterpret_cast())),
            CpuStorage::U8(data) => run(data),
            _ => {}
        }
    }
}

/// Appends block `block` of `cache`, `[blocks, block_size, width]`, to `out`: its numbers, little-endian.
///
/// # Errors
/// When the cache has no such block.
pub fn read_block(cache: &Tensor, block: usize, out: &mut Vec<u8>) -> Result<()> {
    let (storage, layout) = cache.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("read_block: the cache must be on the CPU") };
    let range = block_range("read_block", layout, block)?;
    match storage {
        CpuStorage::F32(data) => {
            let out = append(out, range.len() * 4);
            for (bytes, number) in out.as_chunks_mut().0.iter_mut().zip(&data[range]) {
                *bytes = number.to_le_bytes();
            }
        }
        CpuStorage::BF16(data) => {
            let out = append(out, range.len() * 2);
            for (bytes, number) in out.as_chunks_mut().0.iter_mut().zip(&data[range]) {
                *bytes = number.to_le_bytes();
            }
        }
        CpuStorage::U8(data) => out.extend_from_slice(&data[range]),
        _ => bail!("read_block: the cache must be f32, bf16 or 8 bits"),
    }
    Ok(())
}

/// Fills block `block` of `cache` with what [`read_block`] gave for a cache of the same kind.
///
/// # Errors
/// When the cache has no such block or `bytes` has another size.
pub fn write_block(cache: &Tensor, block: usize, bytes: &[u8]) -> Result<()> {
    cache.inplace_op1(&WriteBlock { block, bytes })
}

/// `count` more bytes at the end. Written in one go afterwards, which is a copy; byte by byte would take ten times as long.
fn append(out: &mut Vec<u8>, count: usize) -> &mut [u8] {
    let first = out.len();
    out.resize(first + count, 0);
    &mut out[first..]
}

/// Where the numbers of a block lie.
fn block_range(op: &str, layout: &Layout, block: usize) -> Result<std::ops::Range<usize>> {
    let (&[blocks, block_size, width], Some((start, _))) = (layout.dims(), layout.contiguous_offsets())
    else {
        bail!("{op}: the cache must be contiguous [blocks, block_size, width], not {:?}", layout.dims());
    };
    if block >= blocks {
        bail!("{op}: block {block} of {blocks}");
    }
    let numbers = block_size * width;
    Ok(start + block * numbers..start + (block + 1) * numbers)
}

struct WriteBlock<'a> {
    block: usize,
    bytes: &'a [u8],
}

impl InplaceOp1 for WriteBlock<'_> {
    fn name(&self) -> &'static str {
        "write_block"
    }

    fn cpu_fwd(&self, cache: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let range = block_range(self.name(), layout, self.block)?;
        let size = match cache {
            CpuStorage::F32(_) => 4,
            CpuStorage::BF16(_) => 2,
            CpuStorage::U8(_) => 1,
            _ => bail!("write_block: the cache must be f32, bf16 or 8 bits"),
        };
        crate::cpu::expect_size(self.name(), "bytes of the block", self.bytes.len(), range.len() * size)?;
        match cache {
            CpuStorage::F32(data) => {
                for (number, bytes) in data[range].iter_mut().zip(self.bytes.as_chunks::<4>().0) {
                    *number = f32::from_le_bytes(*bytes);
                }
            }
            CpuStorage::BF16(data) => {
                for (number, bytes) in data[range].iter_mut().zip(self.bytes.as_chunks::<2>().0) {
                    *number = bf16::from_le_bytes(*bytes);
                }
            }
            CpuStorage::U8(data) => data[range].copy_from_slice(self.bytes),
            _ => unreachable!("looked at above"),
        }
        Ok(())
    }
}
