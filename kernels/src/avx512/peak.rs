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
const TURNS: usize = 100;

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

/// Whether a dot product of bf16 pairs takes more than twice as long as a multiplication of f32, so that two of these are faster.
/// Where it is so, it takes four times as long; elsewhere, as long.
pub(super) fn pairs_are_slow() -> bool {
    static SLOW: OnceLock<bool> = OnceLock::new();
    // SAFETY: who asks has the dot products.
    *SLOW.get_or_init(|| unsafe { first_takes_longer([&|| bf16s(FEW_ROUNDS), &|| f32s(2 * FEW_ROUNDS)]) })
}

/// Whether the first takes longer than the second, by the shortest of some times each. They are taken in turns, some microseconds
/// each, so that what slows the core down for a while slows both.
fn first_takes_longer(work: [&dyn Fn(); 2]) -> bool {
    let mut shortest = [Duration::MAX; 2];
    for _ in 0..TURNS {
        for (shortest, work) in shortest.iter_mut().zip(work) {
            let started = Instant::now();
            work();
            *shortest = started.elapsed().min(*shortest);
        }
    }
    shortest[0] > shortest[1]
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
