//! Weights as they lie in a checkpoint: bytes of a mapped file, never copied, with the format that explains them.

use std::{fmt, ops::Range, sync::Arc};

use memmap2::Mmap;

use crate::pages::release_pages;

/// A byte range of something that stays alive as long as anyone looks at it: a mapped shard, or the binary itself.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
    /// Whether the system finds them in a file again when it has no memory for them.
    in_file: bool,
}

impl SharedBytes {
    /// All bytes of `owner`.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Self {
        let range = 0..(*owner).as_ref().len();
        Self { owner, range, in_file: false }
    }

    /// All bytes of a file that `map` was made of.
    pub fn of_file(map: Mmap) -> Self {
        Self { in_file: true, ..Self::new(Arc::new(map)) }
    }

    /// Gives their memory back to the system if they lie in a file, from which it reads them again if anyone looks.
    #[expect(unsafe_code, reason = "only who made them knows where they lie")]
    fn release(&self) {
        if self.in_file {
            // SAFETY: they do.
            unsafe { release_pages(self) };
        }
    }

    /// A part of these bytes, or `None` when `range` reaches past their end.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        (start <= end && end <= self.range.end).then(|| Self { range: start..end, ..self.clone() })
    }
}

impl std::ops::Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({} bytes)", self.range.len())
    }
}

/// The number format of unquantized weights. Little-endian, not necessarily aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenseDtype {
    /// The upper half of an f32.
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

impl DenseDtype {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// A linear layer's weight `W[out, in]`, row-major, in one of the formats checkpoints use. `y = x · Wᵀ`.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Rows: the size of the output.
    pub out_features: usize,
    /// Columns: the size of the input.
    pub in_features: usize,
    /// Where the numbers are and what they mean.
    pub data: WeightData,
}

impl Weight {
    /// Bytes of its numbers and scales.
    pub fn bytes(&self) -> u64 {
        self.parts().map(|bytes| bytes.len() as u64).sum()
    }

    /// Gives the memory of what lies in files back to the system, which reads it again if anyone looks.
    pub(crate) fn release(&self) {
        self.parts().for_each(SharedBytes::release);
    }

    /// Its numbers, then their scales if it has any.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &SharedBytes> {
        let (numbers, scales) = match &self.data {
            WeightData::Dense { bytes, .. } => (bytes, None),
            WeightData::Int4Group32 { packed, scales, .. } => (packed, Some(scales)),
            WeightData::Int8Group32 { codes, scales } => (codes, Some(scales)),
            WeightData::Fp8Block128 { codes, scale_inv } => (codes, Some(scale_inv)),
        };
        std::iter::once(numbers).chain(scales)
    }
}

/// The formats of a weight.
#[derive(Clone, Debug)]
pub enum WeightData {
    /// `[out, in]` numbers.
    Dense {
        /// Their format.
        dtype: DenseDtype,
        /// `out * in * dtype.size()` bytes.
        bytes: SharedBytes,
    },
    /// compressed-tensors `pack-quantized`, symmetric int4 in groups of 32 along the input dimension.
    Int4Group32 {
        /// i32 `[out, ceil(in / 8)]`: eight codes a word, lowest nibble first, each stored as `q + 8`.
        packed: SharedBytes,
        /// `[out, in / 32]` scales.
        scales: SharedBytes,
        /// Format of the scales (bf16 in Moonshot's checkpoints).
        scale_dtype: DenseDtype,
    },
    /// Rows of whole blocks of 128 columns, in groups of 32: made by [`Weight::to_int8`], in no checkpoint.
    Int8Group32 {
        /// A block's codes of even columns, then those of odd ones, each stored as `q + 128`: `out * in` bytes.
        codes: SharedBytes,
        /// bf16 `[out, in / 32]`.
        scales: SharedBytes,
    },
    /// e4m3 with one f32 scale for each 128×128 block; `W = q * scale_inv`.
    Fp8Block128 {
        /// `[out, in]` e4m3 bytes.
        codes: SharedBytes,
        /// f32 `[ceil(out / 128), ceil(in / 128)]`.
        scale_inv: SharedBytes,
    },
}
