//! A cached token in 8 bits: the latent as e4m3 codes that share an f32 scale by 128, then these scales, then the rotated
//! key part as bf16. With K2.6's 512 and 64 numbers that is 656 bytes, the layout of `DeepSeek`'s `FlashMLA`.

use std::ops::Range;

use half::bf16;

use crate::{
    DenseDtype,
    vectorized::vectorized,
    weight_rows::{E4M3, fp8_row, widen},
};

/// Numbers of the latent that share a scale.
const GROUP: usize = 128;
/// The largest e4m3 number.
const E4M3_MAX: f32 = 448.0;
/// The code of NaN.
const E4M3_NAN: u8 = 0x7f;

/// Where the parts of an entry lie.
#[derive(Clone, Copy)]
pub(crate) struct Fp8Entry {
    latent: usize,
    rope: usize,
}

impl Fp8Entry {
    pub(crate) const fn new(latent: usize, rope: usize) -> Self {
        Self { latent, rope }
    }

    fn scales(self) -> Range<usize> {
        self.latent..self.latent + self.latent.div_ceil(GROUP) * 4
    }

    /// Bytes of one token.
    pub(crate) const fn bytes(self) -> usize {
        self.latent + self.latent.div_ceil(GROUP) * 4 + self.rope * 2
    }

    /// Writes an entry.
    pub(crate) fn encode(self, latent: &[f32], k_pe: &[f32], out: &mut [u8]) {
        self.encode_with(latent, k_pe, out, quantize);
    }

    /// [`encode`](Self::encode) by looking for the nearest code. Part of the reference of `write_latents`.
    pub(crate) fn encode_reference(self, latent: &[f32], k_pe: &[f32], out: &mut [u8]) {
        self.encode_with(latent, k_pe, out, |numbers, scale, codes| {
            for (code, number) in codes.iter_mut().zip(numbers) {
                *code = nearest_code(number / scale);
            }
        });
    }

    fn encode_with(
        self,
        latent: &[f32],
        k_pe: &[f32],
        out: &mut [u8],
        quantize: impl Fn(&[f32], f32, &mut [u8]),
    ) {
        let (codes, rest) = out.split_at_mut(self.latent);
        let (scales, rope) = rest.split_at_mut(self.scales().len());
        let groups = latent.chunks(GROUP).zip(codes.chunks_mut(GROUP)).zip(scales.as_chunks_mut::<4>().0);
        for ((numbers, codes), scale_bytes) in groups {
            let largest = numbers.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
            let scale = if largest > 0.0 { largest / E4M3_MAX } else { 1.0 };
            quantize(numbers, scale, codes);
            *scale_bytes = scale.to_le_bytes();
        }
        for (bytes, number) in rope.as_chunks_mut::<2>().0.iter_mut().zip(k_pe) {
            *bytes = bf16::from_f32(*number).to_le_bytes();
        }
    }

    /// Reads an entry into `out`, `[latent + rope]`.
    pub(crate) fn decode(self, entry: &[u8], out: &mut [f32]) {
        let (latent, k_pe) = out.split_at_mut(self.latent);
        fp8_row(&entry[..self.latent], &entry[self.scales()], latent);
        widen(DenseDtype::Bf16, &entry[self.scales().end..], k_pe);
    }

    /// [`decode`](Self::decode) number by number. A step of the attention references.
    pub(crate) fn decode_reference(self, entry: &[u8]) -> Vec<f32> {
        let scales = entry[self.scales()].as_chunks::<4>().0;
        let latent = entry[..self.latent]
            .iter()
            .enumerate()
            .map(|(index, code)| E4M3[usize::from(*code)] * f32::from_le_bytes(scales[index / GROUP]));
        let k_pe = entry[self.scales().end..].as_chunks::<2>().0.iter();
        latent.chain(k_pe.map(|bytes| bf16::from_le_bytes(*bytes).to_f32())).collect()
    }
}

/// The code whose value is nearest; of two, the even one. NaN keeps being NaN.
fn nearest_code(number: f32) -> u8 {
    if number.is_nan() {
        return E4M3_NAN;
    }
    let distance = |code: u8| (E4M3[usize::from(code)] - number.abs()).abs();
    let order = |a: &u8, b: &u8| distance(*a).total_cmp(&distance(*b)).then((a & 1).cmp(&(b & 1)));
    let magnitude = (0..E4M3_NAN).min_by(order).expect("invariant: there are codes");
    magnitude | if number.is_sign_negative() { 0x80 } else { 0 }
}

vectorized! {
    /// `codes = e4m3(numbers / scale)`, to the nearest, ties to even. Both ways of rounding are computed: normal numbers
    /// drop 20 bits of their mantissa, subnormal ones are counted in steps of `2^-9` by adding 2^23.
    fn quantize(numbers: &[f32], scale: f32, codes: &mut [u8]) {
        const SMALLEST_NORMAL: f32 = 1.0 / 64.0;
        const REBIAS: u32 = (127 - 7) << 3;
        for (code, number) in codes.iter_mut().zip(numbers) {
            let number = number / scale;
            let magnitude = if number.abs() > E4M3_MAX { E4M3_MAX } else { number.abs() };
            let bits = magnitude.to_bits();
            let normal = ((bits + 0x7_ffff + (bits >> 20 & 1)) >> 20).wrapping_sub(REBIAS);
            let subnormal = (magnitude * 512.0 + 8_388_608.0).to_bits() & 0xff;
            let rounded = if magnitude < SMALLEST_NORMAL { subnormal } else { normal };
            let finite = if number.is_nan() { u32::from(E4M3_NAN) } else { rounded };
            *code = (finite | number.to_bits() >> 24 & 0x80) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_every_middle_between_two_rounds_as_the_nearest_does() {
        for code in 0..E4M3_NAN {
            let value = E4M3[usize::from(code)];
            let next = if code + 1 < E4M3_NAN { E4M3[usize::from(code) + 1] } else { 500.0 };
            for number in
                [value, f32::midpoint(value, next), value.next_up(), f32::midpoint(value, next).next_up()]
            {
                for number in [number, -number] {
                    let mut found = [0];
                    quantize(&[number], 1.0, &mut found);
                    assert_eq!(found[0], nearest_code(number), "{number}");
                }
            }
        }
    }

    #[test]
    fn broken_numbers_stay_broken() {
        for broken in [f32::NAN, f32::INFINITY] {
            let entry = Fp8Entry::new(3, 1);
            let mut bytes = vec![0; entry.bytes()];
            entry.encode(&[1.0, broken, -2.0], &[0.5], &mut bytes);
            let mut out = [0.0; 4];
            entry.decode(&bytes, &mut out);
            assert!(out.iter().any(|number| !number.is_finite()), "{out:?}");
        }
    }

    #[test]
    fn the_layout_is_flash_mlas() {
        assert_eq!(Fp8Entry::new(512, 64).bytes(), 656);
    }
}
