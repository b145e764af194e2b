//! Weights of 4 or 8 bits with activations of 8 bits, for many rows: see `wide.rs`.
//!
//! A lane adds up whole groups as integers: what is not a dot product is done for four features at once. The instruction takes a
//! row's four columns for all lanes from any quarter of a vector, so that a row's sixteen codes are loaded once.

use std::{
    arch::{
        aarch64::{
            float32x4_t, int8x16_t, int32x4_t, uint32x4_t, vaddq_f32, vcvtq_f32_s32, vdupq_n_f32, vdupq_n_s8,
            vdupq_n_s32, vfmaq_f32, vmulq_n_f32, vreinterpretq_f32_u32, vreinterpretq_s8_u32,
            vreinterpretq_u32_f32, vreinterpretq_u32_s8, vreinterpretq_u32_u64, vreinterpretq_u64_u32,
            vst1q_f32, vtrn1q_u32, vtrn1q_u64, vtrn2q_u32, vtrn2q_u64,
        },
        asm,
    },
    cell::RefCell,
    ops::Range,
    thread::LocalKey,
};

use super::{Block, CodeRows, Coded, Codes, GROUP, GROUPS, Int4, Int8, SCALES, Stored, load_signed, widen};
use crate::wide::{Scratch, Wide};

/// Numbers of a vector.
const LANES: usize = 4;
/// Vectors that a row's numbers are multiplied with at a time: four rows' integers, sums and codes then fit into the 32 registers,
/// and a vector of weights that was loaded serves four multiplications.
const VECTORS: usize = 2;
/// So many times in turn, while the rows are near.
const PANELS: usize = 2;
const FEATURES: usize = PANELS * VECTORS * LANES;
/// Four columns that are multiplied together, of the even ones of a group; so many are odd.
const QUADS: usize = GROUP / 8;

/// A group of columns, of a panel's features.
#[derive(Clone, Copy)]
pub(super) struct Group {
    /// Codes of four even columns of each feature, quad after quad; then those of odd ones.
    codes: [[[int8x16_t; VECTORS]; QUADS]; 2],
    /// Of each feature.
    scales: [float32x4_t; VECTORS],
}

thread_local! {
    static INT4: RefCell<Scratch<Coded<Int4>>> = const { Scratch::new() };
    static INT8: RefCell<Scratch<Coded<Int8>>> = const { Scratch::new() };
}

/// See [`Codes::scratch`].
pub(super) fn int4_scratch() -> &'static LocalKey<RefCell<Scratch<Coded<Int4>>>> {
    &INT4
}

/// See [`Codes::scratch`].
pub(super) fn int8_scratch() -> &'static LocalKey<RefCell<Scratch<Coded<Int8>>>> {
    &INT8
}

impl<K: Codes> Wide for Coded<K> {
    const FEATURES: usize = FEATURES;
    /// A block of four features is laid out by some 220 instructions; then it takes a row 67 instead of a tile's 120.
    const MANY_ROWS: usize = 8;
    const TILE_ROWS: usize = 4;
    const CHUNK: usize = 4;
    /// A block.
    type Columns = [[Group; PANELS]; GROUPS];
    /// Over the first groups of all blocks, then over the second ones, and so on: the sums of a tile.
    type Sums = [[[float32x4_t; VECTORS]; PANELS]; GROUPS];

    fn scratch() -> &'static LocalKey<RefCell<Scratch<Self>>> {
        K::scratch()
    }

    fn columns(inputs: usize) -> usize {
        inputs
    }

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn lay_out(
        weights: CodeRows<'_>,
        inputs: Range<usize>,
        columns: &mut [Self::Columns],
        ahead: Option<Stored>,
    ) {
        let (codes, scales): (&[K::Packed], &[[u8; SCALES]]) = weights.blocks();
        let blocks = weights.row_blocks();
        let last = scales.len() / blocks - 1;
        for (block, groups) in inputs.zip(columns) {
            for first in (0..FEATURES).step_by(LANES) {
                let at: [usize; LANES] =
                    std::array::from_fn(|lane| (first + lane).min(last) * blocks + block);
                if let Some(ahead) = ahead {
                    for lane in 0..LANES {
                        ahead.ask_block(block * FEATURES + first + lane, size_of::<K::Packed>());
                    }
                }
                let vector = first / LANES;
                put::<K>(at.map(|at| &codes[at]), groups, vector);
                put_scales(at.map(|at| &scales[at]), groups, vector);
            }
        }
    }

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn add<const R: usize>(
        x: [&[Block]; R],
        columns: &[Self::Columns],
        sums: &mut [Self::Sums; R],
        is_first: bool,
    ) {
        assert!(x.iter().all(|x| x.len() == columns.len()));
        for number in 0..GROUPS {
            for panel in 0..PANELS {
                let mut sum = [[vdupq_n_f32(0.0); VECTORS]; R];
                if !is_first {
                    for r in 0..R {
                        sum[r] = sums[r][number][panel];
                    }
                }
                for (block, groups) in columns.iter().enumerate() {
                    // SAFETY: the assertion above.
                    let x: [&Block; R] = std::array::from_fn(|r| unsafe { x[r].get_unchecked(block) });
                    let group = &groups[number][panel];
                    let dots = dots::<K, R>(group, x, number);
                    for r in 0..R {
                        for v in 0..VECTORS {
                            let scale = vmulq_n_f32(group.scales[v], x[r].scales[number]);
                            sum[r][v] = vfmaq_f32(sum[r][v], vcvtq_f32_s32(dots[r][v]), scale);
                        }
                    }
                }
                for r in 0..R {
                    sums[r][number][panel] = sum[r];
                }
            }
        }
    }

    /// In the order of a tile's `fold`.
    #[target_feature(enable = "neon")]
    unsafe fn fold(sums: &[Self::Sums], mut put: impl FnMut(usize, &[f32])) {
        for (row, [a, b, c, d]) in sums.iter().enumerate() {
            let [a, b, c, d] = [a, b, c, d].map(|panels| panels.as_flattened());
            let mut out = [0.0; FEATURES];
            for (v, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let sum = vaddq_f32(vaddq_f32(a[v], b[v]), vaddq_f32(c[v], d[v]));
                // SAFETY: the array has room for the four numbers that are written.
                unsafe { vst1q_f32(out.as_mut_ptr(), sum) };
            }
            put(row, &out);
        }
    }
}

/// The dot products of a group, for each row and feature.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dots<K: Codes, const R: usize>(group: &Group, x: [&Block; R], number: usize) -> [[int32x4_t; VECTORS]; R] {
    let mut dots = [[vdupq_n_s32(0); VECTORS]; R];
    if K::SHIFTED {
        for r in 0..R {
            dots[r] = [vdupq_n_s32(x[r].correction[number]); VECTORS];
        }
    }
    for parity in 0..2 {
        let mut codes = [vdupq_n_s8(0); R];
        for r in 0..R {
            codes[r] = load_signed(if parity == 0 { &x[r].even } else { &x[r].odd }, number);
        }
        let [first, second, third, fourth] = &group.codes[parity];
        add_quad::<0, R>(&mut dots, first, codes);
        add_quad::<1, R>(&mut dots, second, codes);
        add_quad::<2, R>(&mut dots, third, codes);
        add_quad::<3, R>(&mut dots, fourth, codes);
    }
    dots
}

/// The products of four columns: the `QUAD`-th of the rows' codes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_quad<const QUAD: usize, const R: usize>(
    dots: &mut [[int32x4_t; VECTORS]; R],
    weights: &[int8x16_t; VECTORS],
    x: [int8x16_t; R],
) {
    for r in 0..R {
        for v in 0..VECTORS {
            // SAFETY: as for `dot`.
            unsafe {
                asm!(
                    "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]",
                    inout(vreg) dots[r][v], in(vreg) weights[v], in(vreg) x[r], const QUAD,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        }
    }
}

/// Writes the codes of a block of four features to the `vector`-th vector of its groups.
#[inline]
#[target_feature(enable = "neon")]
fn put<K: Codes>(packed: [&K::Packed; LANES], groups: &mut [[Group; PANELS]; GROUPS], vector: usize) {
    for (number, panels) in groups.iter_mut().enumerate() {
        // SAFETY: the function's features.
        let features = packed.map(|packed| unsafe { K::unpack(packed, number) });
        for parity in 0..2 {
            let quads = transpose(features.map(|codes| vreinterpretq_u32_s8(codes[parity])));
            for (quad, codes) in quads.into_iter().enumerate() {
                let panel = &mut panels[vector / VECTORS];
                panel.codes[parity][quad][vector % VECTORS] = vreinterpretq_s8_u32(codes);
            }
        }
    }
}

/// The same for scales.
#[inline]
#[target_feature(enable = "neon")]
fn put_scales(scales: [&[u8; SCALES]; LANES], groups: &mut [[Group; PANELS]; GROUPS], vector: usize) {
    let by_group = transpose(scales.map(|scales| vreinterpretq_u32_f32(widen(scales))));
    for (panels, scales) in groups.iter_mut().zip(by_group) {
        panels[vector / VECTORS].scales[vector % VECTORS] = vreinterpretq_f32_u32(scales);
    }
}

/// The first lanes, then the second ones, and so on.
#[inline]
#[target_feature(enable = "neon")]
fn transpose([a, b, c, d]: [uint32x4_t; LANES]) -> [uint32x4_t; LANES] {
    let pairs = [vtrn1q_u32(a, b), vtrn1q_u32(c, d), vtrn2q_u32(a, b), vtrn2q_u32(c, d)];
    let [even_ab, even_cd, odd_ab, odd_cd] = pairs.map(|lanes| vreinterpretq_u64_u32(lanes));
    [
        vtrn1q_u64(even_ab, even_cd),
        vtrn1q_u64(odd_ab, odd_cd),
        vtrn2q_u64(even_ab, even_cd),
        vtrn2q_u64(odd_ab, odd_cd),
    ]
    .map(|lanes| vreinterpretq_u32_u64(lanes))
}
