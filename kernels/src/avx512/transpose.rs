//! Sixteen vectors of sixteen numbers, turned around.

use std::arch::x86_64::{
    __m512i, _mm512_shuffle_i32x4, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64,
};

const LANES: usize = 16;

/// Rows become columns, in units of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(mut rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let mut next = rows;
    for i in 0..LANES / 2 {
        next[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        next[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Of rows 4i to 4i + 3, `rows[4i + j]` then has the columns j, j + 4, j + 8 and j + 12.
    for i in 0..LANES / 4 {
        for j in 0..2 {
            rows[4 * i + 2 * j] = _mm512_unpacklo_epi64(next[4 * i + j], next[4 * i + j + 2]);
            rows[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(next[4 * i + j], next[4 * i + j + 2]);
        }
    }
    for j in 0..4 {
        let [a, b, c, d] = [rows[j], rows[j + 4], rows[j + 8], rows[j + 12]];
        let (ab, cd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
        next[j] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        next[j + 8] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
        let (ab, cd) = (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d));
        next[j + 4] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        next[j + 12] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
    }
    next
}
