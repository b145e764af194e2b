//! Turns rows of a stored weight into f32, a few at a time. The only place that knows the bit layouts.

use candle_core::{Result, bail};
use half::{bf16, slice::HalfBitsSliceExt};

use crate::{
    Activations, DenseDtype, Weight, WeightData,
    avx512::Avx512,
    code_kernels::CodeKernels,
    codes::{CodeRows, CodeWidth},
    int8_weight::int8_row,
    quantized_rows::{COLUMNS, GROUP},
    stored::Stored,
    vectorized::vectorized,
};

/// Columns that share a scale in `Int4Group32`.
const INT4_GROUP: usize = 32;
/// Side of a block that shares a scale in `Fp8Block128`.
const FP8_BLOCK: usize = 128;

/// A weight whose byte counts were checked, ready to be read row by row.
#[derive(Clone, Copy)]
pub(crate) struct WeightRows<'a> {
    weight: &'a Weight,
}

impl<'a> WeightRows<'a> {
    pub(crate) fn new(weight: &'a Weight) -> Result<Self> {
        let (rows, columns) = (weight.out_features, weight.in_features);
        let expect = |what: &str, found: usize, expected: usize| -> Result<()> {
            if found != expected {
                bail!("weight [{rows}, {columns}]: {what} has {found} bytes, expected {expected}");
            }
            Ok(())
        };
        match &weight.data {
            WeightData::Dense { dtype, bytes } => expect("data", bytes.len(), rows * columns * dtype.size())?,
            WeightData::Int4Group32 { packed, scales, scale_dtype } => {
                expect("packed", packed.len(), rows * columns.div_ceil(8) * 4)?;
                expect("scales", scales.len(), rows * columns.div_ceil(INT4_GROUP) * scale_dtype.size())?;
            }
            WeightData::Int8Group32 { codes, scales } => {
                expect("codes", codes.len(), rows * columns.next_multiple_of(COLUMNS))?;
                expect("scales", scales.len(), rows * columns.next_multiple_of(COLUMNS) / GROUP * 2)?;
            }
            WeightData::Fp8Block128 { codes, scale_inv } => {
                expect("codes", codes.len(), rows * columns)?;
                let blocks = rows.div_ceil(FP8_BLOCK) * columns.div_ceil(FP8_BLOCK);
                expect("scale_inv", scale_inv.len(), blocks * 4)?;
            }
        }
        Ok(Self { weight })
    }

    pub(crate) fn rows(self) -> usize {
        self.weight.out_features
    }

    pub(crate) fn columns(self) -> usize {
        self.weight.in_features
    }

    /// How it is multiplied with such activations on this CPU. Weights of 8 bits always take activations of 8 bits: who asked
    /// for them did not ask for exactness.
    pub(crate) fn product(self, activations: Activations) -> Product<'a> {
        let rounded = activations == Activations::Rounded;
        if let (Some(codes), Some(kernels)) = (self.codes(), CodeKernels::detect())
            && (rounded || matches!(codes.width, CodeWidth::Eight))
        {
            return Product::Codes(kernels, codes);
        }
        match (&self.weight.data, Avx512::detect()) {
            (WeightData::Dense { dtype: DenseDtype::Bf16, bytes }, Some(avx512)) => {
                if rounded && avx512.has_bf16() {
                    Product::Bf16Pairs(avx512, bytes)
                } else {
                    Product::Bf16(avx512, bytes)
                }
            }
            _ => Product::Widened,
        }
    }

    /// Where its rows are stored.
    pub(crate) fn stored(self) -> Stored {
        let rows = self.rows().max(1);
        let mut parts = self.weight.parts().map(|bytes| &**bytes);
        let [data, scales] = [parts.next(), parts.next()].map(Option::unwrap_or_default);
        Stored::new((data, data.len() / rows), (scales, scales.len() / rows))
    }

    /// Codes of rows that are whole blocks of 128 columns, with bf16 scales.
    fn codes(self) -> Option<CodeRows<'a>> {
        let columns = self.columns();
        let (width, codes, scales) = match &self.weight.data {
            WeightData::Int4Group32 { packed, scales, scale_dtype: DenseDtype::Bf16 } => {
                (CodeWidth::Four, packed, scales)
            }
            WeightData::Int8Group32 { codes, scales } => (CodeWidth::Eight, codes, scales),
            _ => return None,
        };
        columns.is_multiple_of(COLUMNS).then(|| CodeRows::new(width, codes, scales, columns))
    }

    /// These rows, one after the other, if they are stored in bf16 where numbers of 16 bits may lie.
    pub(crate) fn bf16(self, rows: std::ops::Range<usize>) -> Option<&'a [bf16]> {
        let WeightData::Dense { dtype: DenseDtype::Bf16, bytes } = &self.weight.data else { return None };
        let row_bytes = self.columns() * DenseDtype::Bf16.size();
        let numbers: &[u16] =
            bytemuck::try_cast_slice(&bytes[rows.start * row_bytes..rows.end * row_bytes]).ok()?;
        Some(numbers.reinterpret_cast())
    }

    /// Writes row `row` to `out[..columns]`.
    pub(crate) fn read(self, row: usize, out: &mut [f32]) {
        let columns = self.weight.in_features;
        let out = &mut out[..columns];
        match &self.weight.data {
            WeightData::Dense { dtype, bytes } => {
                let row_bytes = columns * dtype.size();
                widen(*dtype, &bytes[row * row_bytes..][..row_bytes], out);
            }
            WeightData::Int4Group32 { packed, scales, scale_dtype } => {
                let row_bytes = columns.div_ceil(8) * 4;
                let scale_bytes = columns.div_ceil(INT4_GROUP) * scale_dtype.size();
                let codes = &packed[row * row_bytes..][..row_bytes];
                int4_row(codes, &scales[row * scale_bytes..][..scale_bytes], *scale_dtype, out);
            }
            WeightData::Int8Group32 { codes, scales } => {
                let (codes, scales) = (codes.as_chunks().0, scales.as_chunks().0);
                let blocks = columns / COLUMNS;
                int8_row(&codes[row * blocks..][..blocks], &scales[row * blocks..][..blocks], out);
            }
            WeightData::Fp8Block128 { codes, scale_inv } => {
                let blocks = columns.div_ceil(FP8_BLOCK);
                let scales = &scale_inv[row / FP8_BLOCK * blocks * 4..][..blocks * 4];
                fp8_row(&codes[row * columns..][..columns], scales, out);
            }
        }
    }
}

/// What a weight is multiplied as, and by what.
pub(crate) enum Product<'a> {
    /// Codes, with activations of 8 bits.
    Codes(CodeKernels, CodeRows<'a>),
    /// bf16, with activations in bf16: the bytes of all rows.
    Bf16Pairs(Avx512, &'a [u8]),
    /// bf16, with f32: the bytes of all rows.
    Bf16(Avx512, &'a [u8]),
    /// f32, made from some rows at a time.
    Widened,
}

/// Little-endian numbers of `dtype`, as f32.
pub(crate) fn widen(dtype: DenseDtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DenseDtype::Bf16 => widen_bf16(bytes, out),
        DenseDtype::F16 => widen_f16(bytes, out),
        DenseDtype::F32 => widen_f32(bytes, out),
    }
}

/// The number at `index` of little-endian numbers of `dtype`.
fn number(dtype: DenseDtype, bytes: &[u8], index: usize) -> f32 {
    let mut out = [0.0];
    widen(dtype, &bytes[index * dtype.size()..][..dtype.size()], &mut out);
    out[0]
}

vectorized! {
    fn widen_bf16(bytes: &[u8], out: &mut [f32]) {
        for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            *out = f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16);
        }
    }

    fn widen_f32(bytes: &[u8], out: &mut [f32]) {
        for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(4)) {
            *out = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }

    /// Moves exponent and mantissa into place and repairs the exponent by a multiplication, which also normalizes
    /// subnormal numbers; infinities and NaN are put back by the comparison.
    fn widen_f16(bytes: &[u8], out: &mut [f32]) {
        let rebias = f32::from_bits((127 + (127 - 15)) << 23);
        for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            let half = u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
            let magnitude = (half & 0x7fff) << 13;
            let finite = (f32::from_bits(magnitude) * rebias).to_bits();
            let special = if half & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
            *out = f32::from_bits(finite | special | (half & 0x8000) << 16);
        }
    }

    /// `f32(bf16(code * scale))`: the product is rounded to bf16 as compressed-tensors does, so that all engines
    /// multiply with the same weight.
    fn int4_group(codes: &[u8; INT4_GROUP / 2], scale: f32, out: &mut [f32; INT4_GROUP]) {
        for (pair, &byte) in out.chunks_exact_mut(2).zip(codes) {
            pair[0] = round_to_bf16(f32::from(byte & 15) - 8.0, scale);
            pair[1] = round_to_bf16(f32::from(byte >> 4) - 8.0, scale);
        }
    }

    fn fp8_block(codes: &[u8], scale: f32, out: &mut [f32]) {
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = E4M3[usize::from(code)] * scale;
        }
    }
}

/// `code * scale`, to the nearest bf16, ties to even. Scales are finite: the loader checks.
#[expect(clippy::inline_always, reason = "called from the innermost loop of both CPU variants")]
#[inline(always)]
fn round_to_bf16(code: f32, scale: f32) -> f32 {
    let bits = (code * scale).to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

fn int4_row(codes: &[u8], scales: &[u8], scale_dtype: DenseDtype, out: &mut [f32]) {
    for (group, out) in out.chunks_mut(INT4_GROUP).enumerate() {
        let scale = number(scale_dtype, scales, group);
        let codes = &codes[group * INT4_GROUP / 2..];
        if let (Some(codes), Some(out)) = (codes.first_chunk(), out.first_chunk_mut()) {
            int4_group(codes, scale, out);
        } else {
            // The last columns of a row whose length is no multiple of the group.
            let mut padded = [0; INT4_GROUP / 2];
            padded[..codes.len()].copy_from_slice(codes);
            let mut values = [0.0; INT4_GROUP];
            int4_group(&padded, scale, &mut values);
            out.copy_from_slice(&values[..out.len()]);
        }
    }
}

pub(crate) fn fp8_row(codes: &[u8], scales: &[u8], out: &mut [f32]) {
    for (block, (codes, out)) in codes.chunks(FP8_BLOCK).zip(out.chunks_mut(FP8_BLOCK)).enumerate() {
        fp8_block(codes, number(DenseDtype::F32, scales, block), out);
    }
}

/// Value of each e4m3 code (the "fn" variant: no infinities, NaN at 0x7f and 0xff).
pub(crate) static E4M3: [f32; 256] = e4m3_table();

const fn e4m3_table() -> [f32; 256] {
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let (exponent, mantissa) = ((code >> 3) & 15, (code & 7) as f32);
        let magnitude = match (exponent, code & 7) {
            (15, 7) => f32::NAN,
            // Subnormal: mantissa / 8 * 2^-6.
            (0, _) => mantissa / 512.0,
            _ => (1.0 + mantissa / 8.0) * f32::from_bits(((exponent + 127 - 7) as u32) << 23),
        };
        table[code] = if code & 0x80 == 0 { magnitude } else { -magnitude };
        code += 1;
    }
    table
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the formats define exact values")]
mod tests {
    use std::sync::Arc;

    use half::f16;

    use super::*;
    use crate::SharedBytes;

    fn shared(bytes: Vec<u8>) -> SharedBytes {
        SharedBytes::new(Arc::new(bytes))
    }

    fn read_all(weight: &Weight) -> Vec<f32> {
        let rows = WeightRows::new(weight).unwrap();
        let mut out = vec![0.0; weight.out_features * weight.in_features];
        for (row, out) in out.chunks_mut(weight.in_features).enumerate() {
            rows.read(row, out);
        }
        out
    }

    #[test]
    fn int4_word_of_the_format_description() {
        let mut packed = 0x8f64_500a_u32.to_le_bytes().to_vec();
        packed.extend([0x88; 12]);
        let scale = bf16::from_f32(0.3);
        let weight = Weight {
            out_features: 1,
            in_features: 32,
            data: WeightData::Int4Group32 {
                packed: shared(packed),
                scales: shared(scale.to_le_bytes().to_vec()),
                scale_dtype: DenseDtype::Bf16,
            },
        };
        let mut expected = [0.0; 32];
        for (out, code) in expected.iter_mut().zip([2.0, -8.0, -8.0, -3.0, -4.0, -2.0, 7.0, 0.0]) {
            *out = bf16::from_f32(code * scale.to_f32()).to_f32();
        }
        assert_eq!(read_all(&weight), expected);
    }

    #[test]
    fn int4_rows_that_end_inside_a_group() {
        let packed: Vec<u8> = (0..2 * 5 * 4).map(|i| (i * 37 % 256) as u8).collect();
        let scales: Vec<u8> = [0.5_f32, 2.0, 1.0, 4.0].iter().flat_map(|s| s.to_le_bytes()).collect();
        let weight = Weight {
            out_features: 2,
            in_features: 37,
            data: WeightData::Int4Group32 {
                packed: shared(packed.clone()),
                scales: shared(scales),
                scale_dtype: DenseDtype::F32,
            },
        };
        let values = read_all(&weight);
        for (row, scales) in [[0.5, 2.0], [1.0, 4.0]].iter().enumerate() {
            for column in 0..37 {
                let code = packed[row * 20 + column / 2] >> (4 * (column % 2)) & 15;
                assert_eq!(values[row * 37 + column], (f32::from(code) - 8.0) * scales[column / 32]);
            }
        }
    }

    #[test]
    fn every_f16_and_bf16_widens_exactly() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut out = vec![0.0; 1 << 16];
        widen(DenseDtype::F16, &bytes, &mut out);
        for (bits, value) in (0..=u16::MAX).zip(&out) {
            let expected = f16::from_bits(bits).to_f32();
            assert!(
                value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan(),
                "{bits:#x}"
            );
        }
        widen(DenseDtype::Bf16, &bytes, &mut out);
        for (bits, value) in (0..=u16::MAX).zip(&out) {
            assert_eq!(value.to_bits(), u32::from(bits) << 16);
        }
    }

    #[test]
    fn e4m3_values() {
        for (code, value) in
            [(0x00, 0.0), (0x01, 0.001_953_125), (0x08, 0.015_625), (0x38, 1.0), (0x7e, 448.0)]
        {
            assert_eq!(E4M3[code], value);
            assert_eq!(E4M3[code | 0x80], -value);
        }
        assert!(E4M3[0x7f].is_nan() && E4M3[0xff].is_nan());
    }

    #[test]
    fn fp8_scales_belong_to_blocks_of_128_by_128() {
        let scales: Vec<u8> = [1.0_f32, 2.0, 4.0, 8.0].iter().flat_map(|s| s.to_le_bytes()).collect();
        let weight = Weight {
            out_features: 130,
            in_features: 129,
            data: WeightData::Fp8Block128 { codes: shared(vec![0x38; 130 * 129]), scale_inv: shared(scales) },
        };
        let values = read_all(&weight);
        let at = |row: usize, column: usize| values[row * 129 + column];
        assert_eq!([at(127, 127), at(127, 128), at(128, 127), at(129, 128)], [1.0, 2.0, 4.0, 8.0]);
    }

    #[test]
    fn wrong_byte_counts_are_named() {
        let weight = Weight {
            out_features: 2,
            in_features: 3,
            data: WeightData::Dense { dtype: DenseDtype::F32, bytes: shared(vec![0; 20]) },
        };
        let error = WeightRows::new(&weight).err().unwrap().to_string();
        assert!(error.contains("data has 20 bytes, expected 24"), "{error}");
    }
}
