//! Activations to 8 bits: `quantized_rows.rs` in vectors.

use std::arch::x86_64::{
    _CMP_UNORD_Q, _mm_storeu_si128, _mm512_abs_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_epi8, _mm512_cvtps_epi32, _mm512_loadu_si512, _mm512_max_ps, _mm512_mul_ps,
    _mm512_permutex2var_ps, _mm512_reduce_add_epi32, _mm512_reduce_max_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps,
};

use super::{Avx512, load_f32};
use crate::quantized_rows::{Block, COLUMNS, inverse_and_scale};

/// See [`Avx512::quantize`].
pub(super) fn quantize(_: Avx512, numbers: &[f32; COLUMNS], block: &mut Block) {
    // SAFETY: the CPU has the features: the proof.
    unsafe { vectors(numbers, block) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn vectors(numbers: &[f32; COLUMNS], block: &mut Block) {
    const EVEN: [i32; 16] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];
    // SAFETY: the array has the 64 bytes that are read.
    let even = unsafe { _mm512_loadu_si512(EVEN.as_ptr().cast()) };
    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    let (halves, _) = numbers.as_chunks::<16>();
    let codes = block.even.as_chunks_mut::<16>().0.iter_mut().zip(block.odd.as_chunks_mut::<16>().0);
    for (group, (even_codes, odd_codes)) in codes.enumerate() {
        let (a, b) = (load_f32(&halves[2 * group]), load_f32(&halves[2 * group + 1]));
        let largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
        let zero = _mm512_setzero_ps();
        // NaN where a number is not finite.
        let zeros = _mm512_add_ps(_mm512_mul_ps(a, zero), _mm512_mul_ps(b, zero));
        let finite = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(zeros, zeros) == 0;
        let (inverse, scale) = inverse_and_scale(largest, finite);
        let inverse = _mm512_set1_ps(inverse);
        let [even, odd] = [even, odd].map(|places| {
            let numbers = _mm512_permutex2var_ps(a, places, b);
            _mm512_cvtps_epi32(_mm512_mul_ps(numbers, inverse))
        });
        // SAFETY: the arrays have room for the sixteen bytes that are written.
        unsafe {
            _mm_storeu_si128(even_codes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(even));
            _mm_storeu_si128(odd_codes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(odd));
        }
        block.correction[group] = -8 * _mm512_reduce_add_epi32(_mm512_add_epi32(even, odd));
        block.scales[group] = scale;
    }
}
