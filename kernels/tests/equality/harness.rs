//! Random tensors and weights, and comparisons.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use kimi_kernels::{DenseDtype, SharedBytes, Weight, WeightData};
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

/// Seeded random numbers.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        super::begin();
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Between -1 and 1.
    pub(crate) fn float(&mut self) -> f32 {
        self.0.random_range(-1.0..1.0)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    pub(crate) fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| self.float()).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    /// `0..len` in random order.
    pub(crate) fn permutation(&mut self, len: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len as u32).collect();
        for last in (1..len).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }

    pub(crate) fn dense(&mut self, dtype: DenseDtype, out_features: usize, in_features: usize) -> Weight {
        let numbers: Vec<f32> = (0..out_features * in_features).map(|_| self.float()).collect();
        let bytes = encode(dtype, &numbers);
        Weight { out_features, in_features, data: WeightData::Dense { dtype, bytes: unaligned(&bytes) } }
    }

    pub(crate) fn int4(&mut self, out_features: usize, in_features: usize) -> Weight {
        self.int4_with(out_features, in_features, |random| random.float() * 0.2)
    }

    /// Scales are powers of two: a code times its scale needs no rounding.
    pub(crate) fn int4_exact(&mut self, out_features: usize, in_features: usize) -> Weight {
        self.int4_with(out_features, in_features, |random| 0.5_f32.powi(random.below(6) as i32))
    }

    fn int4_with(
        &mut self,
        out_features: usize,
        in_features: usize,
        scale: impl Fn(&mut Self) -> f32,
    ) -> Weight {
        let packed: Vec<u8> =
            (0..out_features * in_features.div_ceil(8) * 4).map(|_| self.below(256) as u8).collect();
        let groups = out_features * in_features.div_ceil(32);
        let scales: Vec<f32> = (0..groups).map(|_| scale(self)).collect();
        let scales = unaligned(&encode(DenseDtype::Bf16, &scales));
        let data =
            WeightData::Int4Group32 { packed: unaligned(&packed), scales, scale_dtype: DenseDtype::Bf16 };
        Weight { out_features, in_features, data }
    }

    pub(crate) fn fp8(&mut self, out_features: usize, in_features: usize) -> Weight {
        // Codes up to 1.875, both signs.
        let codes: Vec<u8> =
            (0..out_features * in_features).map(|_| (self.below(0x40) | self.below(2) << 7) as u8).collect();
        let blocks = out_features.div_ceil(128) * in_features.div_ceil(128);
        let scales: Vec<f32> = (0..blocks).map(|_| self.float()).collect();
        let scale_inv = unaligned(&encode(DenseDtype::F32, &scales));
        Weight {
            out_features,
            in_features,
            data: WeightData::Fp8Block128 { codes: unaligned(&codes), scale_inv },
        }
    }
}

fn encode(dtype: DenseDtype, numbers: &[f32]) -> Vec<u8> {
    match dtype {
        DenseDtype::Bf16 => numbers.iter().flat_map(|n| bf16::from_f32(*n).to_le_bytes()).collect(),
        DenseDtype::F16 => numbers.iter().flat_map(|n| f16::from_f32(*n).to_le_bytes()).collect(),
        DenseDtype::F32 => numbers.iter().flat_map(|n| n.to_le_bytes()).collect(),
    }
}

/// The bytes at an odd address, as they may lie in a file.
fn unaligned(bytes: &[u8]) -> SharedBytes {
    let mut padded = vec![0xa5; bytes.len() + 1];
    let shift = usize::from(padded.as_ptr().addr().is_multiple_of(2));
    padded[shift..][..bytes.len()].copy_from_slice(bytes);
    SharedBytes::new(Arc::new(padded)).slice(shift..shift + bytes.len()).unwrap()
}

/// An f32 tensor full of a number that no op produces.
pub(crate) fn unwritten(shape: &[usize]) -> Tensor {
    Tensor::full(f32::MAX, shape, &Device::Cpu).unwrap()
}

pub(crate) fn numbers(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Fails when any element differs by more than `tolerance`.
pub(crate) fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.elem_count(), expected.elem_count(), "{what}: sizes");
    for (index, (found, expected)) in numbers(found).into_iter().zip(numbers(expected)).enumerate() {
        assert!((found - expected).abs() <= tolerance, "{what}: {found} instead of {expected} at {index}");
    }
}
