//! Products of codes for ARM CPUs with dot products of bytes (`dotprod` of ARMv8.2): weights of 4 or 8 bits with activations of 8
//! bits. The rest of the model is plain Rust there, which LLVM turns into NEON by itself.
//!
//! A result is `(s0 + s1) + (s2 + s3)`, where `s0` is the sum over the first groups of all blocks, in order, and so on: as with
//! AVX-512. Integer sums are exact, so the tiles here and those of `wide_codes.rs` agree to the last bit.

#![allow(unsafe_code, reason = "calls code compiled for CPU features whose presence `Neon` proves")]

mod wide_codes;

use std::{
    arch::{
        aarch64::{
            float32x4_t, int8x16_t, int32x4_t, uint8x16_t, vandq_u8, vcvtq_f32_s32, vdupq_n_f32, vdupq_n_s8,
            vdupq_n_s32, vdupq_n_u8, veorq_u8, vfmaq_f32, vgetq_lane_f32, vld1_u8, vld1q_f32, vld1q_s8,
            vld1q_s32, vld1q_u8, vmulq_f32, vpaddq_f32, vpaddq_s32, vqaddq_s32, vreinterpret_u16_u8,
            vreinterpretq_f32_u32, vreinterpretq_s8_u8, vshll_n_u16, vshrq_n_u8,
        },
        asm,
    },
    cell::RefCell,
    marker::PhantomData,
    ops::Range,
    thread::LocalKey,
};

use crate::{
    codes::{Blocks, CodeRows, CodeWidth, SCALES},
    output::Output,
    quantized_rows::{Block, COLUMNS, GROUP},
    stored::Stored,
    tiles::Format,
    vectors::{Vectors, vectors},
    wide::{self, Scratch},
};

/// Groups of a block: as many as lanes of 32 bits.
const GROUPS: usize = COLUMNS / GROUP;
/// Bytes of a vector: a group's even columns, or its odd ones.
const BYTES: usize = GROUP / 2;
/// Blocks of a feature that are multiplied before those of the next one: its sums stay in registers meanwhile, the rows' codes in
/// the nearest cache.
const CHUNK: usize = 8;

/// Proof that this CPU has the dot products of bytes.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// `None` on other CPUs.
    pub(crate) fn detect() -> Option<Self> {
        (vectors() == Vectors::NeonDot).then_some(Self(()))
    }

    /// `out[row, feature] = x[row] · weights[feature]`. `x` must not be empty. `next` is what will be multiplied afterwards, if that
    /// is known.
    #[expect(clippy::unused_self, reason = "a proof, as elsewhere")]
    pub(crate) fn multiply_codes(
        self,
        x: &[&[Block]],
        weights: CodeRows<'_>,
        out: Output<'_>,
        next: Option<Stored>,
    ) {
        // SAFETY: the formats need nothing beyond the dot products.
        unsafe {
            match weights.width {
                CodeWidth::Four => wide::multiply::<Coded<Int4>>(x, weights, out, next),
                CodeWidth::Eight => wide::multiply::<Coded<Int8>>(x, weights, out, next),
            }
        }
    }
}

/// How a block's codes lie.
trait Codes: Sized + 'static {
    /// All of them: an array of bytes.
    type Packed: bytemuck::Pod;

    /// Whether they are unpacked as `q + 8`: the activations' corrections take the 8 away, for all of a group at once.
    const SHIFTED: bool;

    /// Codes of the even columns of a group, and of the odd ones.
    ///
    /// # Safety
    /// The CPU must have NEON.
    unsafe fn unpack(packed: &Self::Packed, group: usize) -> [int8x16_t; 2];

    /// Memory that a thread keeps.
    fn scratch() -> &'static LocalKey<RefCell<Scratch<Coded<Self>>>>;
}

enum Int4 {}

enum Int8 {}

impl Codes for Int4 {
    type Packed = [u8; COLUMNS / 2];
    const SHIFTED: bool = true;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn unpack(packed: &Self::Packed, group: usize) -> [int8x16_t; 2] {
        let bytes = load(packed, group);
        // Below 16, and so the same with a sign and without.
        [vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes)].map(|codes| vreinterpretq_s8_u8(codes))
    }

    fn scratch() -> &'static LocalKey<RefCell<Scratch<Coded<Self>>>> {
        wide_codes::int4_scratch()
    }
}

impl Codes for Int8 {
    type Packed = [u8; COLUMNS];
    const SHIFTED: bool = false;

    /// The instruction takes bytes with a sign. They are stored as `q + 128`: their upper bit turned around.
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn unpack(packed: &Self::Packed, group: usize) -> [int8x16_t; 2] {
        let (even, odd) = (load(packed, group), load(packed, GROUPS + group));
        [veorq_u8(even, vdupq_n_u8(128)), veorq_u8(odd, vdupq_n_u8(128))]
            .map(|codes| vreinterpretq_s8_u8(codes))
    }

    fn scratch() -> &'static LocalKey<RefCell<Scratch<Coded<Self>>>> {
        wide_codes::int8_scratch()
    }
}

/// Blocks of columns with activations of 8 bits.
struct Coded<K>(PhantomData<K>);

impl<K: Codes> Format for Coded<K> {
    const ROWS: usize = 4;
    type Input = Block;
    type Weights<'a> = CodeRows<'a>;

    fn features(weights: Self::Weights<'_>, range: Range<usize>) -> Self::Weights<'_> {
        weights.features(range)
    }

    fn stored(weights: Self::Weights<'_>) -> Stored {
        weights.stored()
    }

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn tile<const R: usize, const F: usize>(
        x: [&[Block]; R],
        weights: [CodeRows<'_>; F],
        ahead: Option<Stored>,
    ) -> [[f32; R]; F] {
        let blocks = x[0].len();
        let weights: [Blocks<'_, K::Packed>; F] = weights.map(CodeRows::blocks);
        let mut sums = [[vdupq_n_f32(0.0); R]; F];
        let mut place = 0;
        for first in (0..blocks).step_by(CHUNK) {
            let chunk = first..blocks.min(first + CHUNK);
            let x = x.map(|x| &x[chunk.clone()]);
            for ((codes, scales), sums) in weights.iter().zip(&mut sums) {
                let weights = (&codes[chunk.clone()], &scales[chunk.clone()]);
                add_blocks::<K, R>(x, weights, sums, ahead.map(|ahead| (ahead, place)));
                place += chunk.len();
            }
        }
        sums.map(|sums| sums.map(|sums| fold(sums)))
    }
}

/// Adds some blocks of a feature. A vector of sums has a lane for each of a block's groups: three additions of neighbours bring
/// the dot products of four groups there, and what follows is done for all four at once. Blocks are asked for from a place on.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_blocks<K: Codes, const R: usize>(
    x: [&[Block]; R],
    (codes, scales): Blocks<'_, K::Packed>,
    sums: &mut [float32x4_t; R],
    ahead: Option<(Stored, usize)>,
) {
    assert!(x.iter().all(|x| x.len() == codes.len()));
    let mut sum = *sums;
    for (block, (packed, scales)) in codes.iter().zip(scales).enumerate() {
        if let Some((ahead, place)) = ahead {
            ahead.ask_block(place + block, size_of::<K::Packed>());
        }
        let mut codes = [[vdupq_n_s8(0); 2]; GROUPS];
        for (group, codes) in codes.iter_mut().enumerate() {
            // SAFETY, here and below: this function's features, the assertion above, and arrays of as many numbers as are read.
            *codes = unsafe { K::unpack(packed, group) };
        }
        let scales = widen(scales);
        for r in 0..R {
            let x = unsafe { x[r].get_unchecked(block) };
            let mut dots = [vdupq_n_s32(0); GROUPS];
            for group in 0..GROUPS {
                dots[group] = dot(dots[group], codes[group][0], load_signed(&x.even, group));
                dots[group] = dot(dots[group], codes[group][1], load_signed(&x.odd, group));
            }
            let mut dots = vpaddq_s32(vpaddq_s32(dots[0], dots[1]), vpaddq_s32(dots[2], dots[3]));
            if K::SHIFTED {
                // Far from saturation: LLVM takes a plain sum and those of neighbours apart, into more instructions.
                dots = vqaddq_s32(dots, unsafe { vld1q_s32(x.correction.as_ptr()) });
            }
            let scale = vmulq_f32(scales, unsafe { vld1q_f32(x.scales.as_ptr()) });
            sum[r] = vfmaq_f32(sum[r], vcvtq_f32_s32(dots), scale);
        }
    }
    *sums = sum;
}

/// To each lane, the dot product of four bytes. The standard library has it as `vdotq_s32`, which is not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: it reads and writes these registers alone, and the CPU has it: the function's features.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sums, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// A block's scales, as f32: a group in each lane.
#[inline]
#[target_feature(enable = "neon")]
fn widen(scales: &[u8; SCALES]) -> float32x4_t {
    // SAFETY: the array has the bytes that are read.
    let scales = vreinterpret_u16_u8(unsafe { vld1_u8(scales.as_ptr()) });
    vreinterpretq_f32_u32(vshll_n_u16::<16>(scales))
}

/// The sum of all lanes: neighbours first.
#[inline]
#[target_feature(enable = "neon")]
fn fold(sums: float32x4_t) -> f32 {
    let pairs = vpaddq_f32(sums, sums);
    vgetq_lane_f32::<0>(vpaddq_f32(pairs, pairs))
}

/// The `index`-th vector.
#[inline]
#[target_feature(enable = "neon")]
fn load<const N: usize>(bytes: &[u8; N], index: usize) -> uint8x16_t {
    // SAFETY: the array has the bytes that are read.
    unsafe { vld1q_u8(bytes.as_chunks::<BYTES>().0[index].as_ptr()) }
}

/// The same with a sign.
#[inline]
#[target_feature(enable = "neon")]
fn load_signed<const N: usize>(codes: &[i8; N], index: usize) -> int8x16_t {
    // SAFETY: the array has the bytes that are read.
    unsafe { vld1q_s8(codes.as_chunks::<BYTES>().0[index].as_ptr()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::example::Example;

    #[test]
    fn products_are_right_and_the_same_for_few_rows_and_many() {
        if !std::arch::is_aarch64_feature_detected!("dotprod") {
            return;
        }
        // Neither tiles, layouts nor chunks come out even.
        let (rows, features) = (15, 39);
        let example = Example::new(rows, features, 11 * COLUMNS);
        for width in [CodeWidth::Four, CodeWidth::Eight] {
            let multiply = |x: &[&[Block]]| {
                let mut found = vec![f32::MAX; x.len() * features];
                let out = Output::contiguous(&mut found, features);
                Neon(()).multiply_codes(x, example.weights(width), out, None);
                found
            };
            let x = example.rows(rows);
            let together = multiply(&x);
            for count in [1, 2, 3, 7] {
                let some: Vec<f32> = x.chunks(count).flat_map(multiply).collect();
                assert!(some == together, "{count} rows at a time");
            }
            for (i, found) in together.iter().enumerate() {
                let expected = example.product(width, i / features, i % features);
                assert!((f64::from(*found) - expected).abs() <= 1e-3, "{found} instead of {expected} at {i}");
            }
        }
    }
}
