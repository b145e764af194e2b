//! Looks for NaN and infinity in stored numbers.

use kimi_kernels::DenseDtype;

/// Bytes looked at between two decisions: long enough for wide instructions, short enough to stop early.
const CHUNK: usize = 4096;

/// Position of the first number in `bytes` that is NaN or infinite.
pub(super) fn first_non_finite(dtype: DenseDtype, bytes: &[u8]) -> Option<usize> {
    // A number is not finite exactly if all bits of its exponent are set.
    match dtype {
        DenseDtype::Bf16 => find_u16(bytes, 0x7f80),
        DenseDtype::F16 => find_u16(bytes, 0x7c00),
        DenseDtype::F32 => find_u32(bytes, 0x7f80_0000),
    }
}

fn find_u16(bytes: &[u8], exponent: u16) -> Option<usize> {
    let bad = |number: &[u8; 2]| u16::from_le_bytes(*number) & exponent == exponent;
    find(bytes.as_chunks::<2>().0, bad, CHUNK / 2)
}

fn find_u32(bytes: &[u8], exponent: u32) -> Option<usize> {
    let bad = |number: &[u8; 4]| u32::from_le_bytes(*number) & exponent == exponent;
    find(bytes.as_chunks::<4>().0, bad, CHUNK / 4)
}

fn find<T>(numbers: &[T], bad: impl Fn(&T) -> bool, chunk: usize) -> Option<usize> {
    // The inner fold has no early exit, so that it compiles to vector instructions.
    let any = |numbers: &[T]| numbers.iter().fold(false, |any, number| any | bad(number));
    let hit = numbers.chunks(chunk).position(any)? * chunk;
    numbers[hit..].iter().position(bad).map(|position| hit + position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_in_every_format() {
        for (dtype, one, bads) in [
            (DenseDtype::Bf16, vec![0x80, 0x3f], [vec![0xc0, 0x7f], vec![0x80, 0xff]]),
            (DenseDtype::F16, vec![0xff, 0x7b], [vec![0x00, 0x7e], vec![0x00, 0xfc]]),
            (
                DenseDtype::F32,
                1.0_f32.to_le_bytes().to_vec(),
                [f32::NAN.to_le_bytes().to_vec(), f32::NEG_INFINITY.to_le_bytes().to_vec()],
            ),
        ] {
            let mut bytes = one.repeat(5000);
            assert_eq!(first_non_finite(dtype, &bytes), None);
            for (position, bad) in [4999, 3100].into_iter().zip(bads) {
                bytes[position * bad.len()..][..bad.len()].copy_from_slice(&bad);
                assert_eq!(first_non_finite(dtype, &bytes), Some(position));
            }
        }
    }
}
