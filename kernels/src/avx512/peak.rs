//! Loops of nothing but multiplications: what tiles could reach.

use std::{
    arch::x86_64::{
        __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_set1_epi32,
        _mm512_set1_ps, _mm512_setzero_ps,
    },
    hint::black_box,
    mem::transmute,
    sync::OnceLock,
    time::{Duration, Instant},
};

use super::Avx512;
use crate::{peak::Multiplication, threads};

/// Independent sums: more than a multiplication takes cycles, on both of its units.
const SUMS: usize = 12;
const ROUNDS: usize = 1 << 12;
const FEW_ROUNDS: usize = 1 << 8;

/// Parts of some ten microseconds, so that a thread without its core does not hold up the others.
const PARTS: usize = 1 << 10;

/// See [`peak`](fn@crate::peak).
pub(super) fn peak(avx512: Avx512, multiplication: Multiplication) -> Option<f64> {
    let lanes = match multiplication {
        Multiplication::F32 => 16,
        Multiplication::Bf16 => 32,
        Multiplication::Int8 => 64,
    };
    if multiplication == Multiplication::Bf16 && !avx512.bf16 {
        return None;
    }
    let started = Instant::now();
    threads::for_each(PARTS, usize::MAX, |_| {
        // SAFETY: the CPU has the features: `avx512`, and for bf16 the condition above.
        unsafe {
            match multiplication {
                Multiplication::F32 => f32s(ROUNDS),
                Multiplication::Bf16 => bf16s(ROUNDS),
                Multiplication::Int8 => int8s(ROUNDS),
            }
        }
    });
    Some((2 * lanes * SUMS * ROUNDS * PARTS) as f64 / started.elapsed().as_secs_f64())
}

/// Whether a dot product of bf16 pairs takes more than three times as long as a multiplication of f32, so that two of these are faster.
pub(super) fn pairs_are_slow() -> bool {
    static SLOW: OnceLock<bool> = OnceLock::new();
    /// The shortest of some times, of some microseconds each.
    fn shortest(run: impl Fn()) -> Duration {
        let time = |_| {
            let started = Instant::now();
            run();
            started.elapsed()
        };
        (0..20).map(time).min().unwrap_or_default()
    }
    // SAFETY: who asks has the dot products.
    *SLOW.get_or_init(|| unsafe { shortest(|| bf16s(FEW_ROUNDS)) > 3 * shortest(|| f32s(FEW_ROUNDS)) })
}

#[target_feature(enable = "avx512f")]
fn f32s(rounds: usize) {
    let (mut sums, x) = ([_mm512_setzero_ps(); SUMS], black_box(_mm512_set1_ps(0.5)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, x, x);
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16s(rounds: usize) {
    // SAFETY: both types are 512 bits of anything.
    let x = unsafe { transmute::<__m512i, __m512bh>(black_box(_mm512_set1_epi32(0x3f00_3f00))) };
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, x, x);
        }
    }
    black_box(sums);
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn int8s(rounds: usize) {
    let (mut sums, x) = ([_mm512_set1_epi32(0); SUMS], black_box(_mm512_set1_epi32(0x0101_0101)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, x, x);
        }
    }
    black_box(sums);
}
