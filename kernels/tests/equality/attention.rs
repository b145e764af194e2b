//! Both forms of latent attention and the cache they read.

use candle_core::{DType, Device, Tensor};
use kimi_kernels::{
    Activations, DenseDtype, FEW_ROWS, MlaLayer, MlaShape, PagedSpan, Weight, fp8_entry_bytes, mla_decode,
    mla_prefill, read_block, reference, rows_are_independent, write_block, write_latents,
};

use super::harness::{Random, assert_close, numbers, unwritten};

const SHAPE: MlaShape = MlaShape { heads: 3, nope: 20, rope: 6, value: 14, latent: 37, scale: 0.3 };

/// A cache full of numbers between -2 and 2, whatever its format.
fn filled_cache(
    random: &mut Random,
    [blocks, block_size]: [usize; 2],
    shape: MlaShape,
    dtype: DType,
) -> Tensor {
    let width = shape.latent + shape.rope;
    let numbers = (random.tensor(&[blocks, block_size, width]) * 2.0).unwrap();
    if dtype != DType::U8 {
        return numbers.to_dtype(dtype).unwrap();
    }
    let bytes = fp8_entry_bytes(shape.latent, shape.rope);
    let cache = Tensor::zeros((blocks, block_size, bytes), dtype, &Device::Cpu).unwrap();
    let entries = numbers.flatten(0, 1).unwrap();
    let (latent, k_pe) =
        (entries.narrow(1, 0, shape.latent).unwrap(), entries.narrow(1, shape.latent, shape.rope).unwrap());
    let block_table: Vec<u32> = (0..blocks as u32).collect();
    let span = PagedSpan { block_table: &block_table, start: 0, rows: blocks * block_size };
    reference::write_latents(&latent.contiguous().unwrap(), &k_pe.contiguous().unwrap(), &[span], &cache)
        .unwrap()
}

struct Case {
    random: Random,
    /// `[blocks, block_size, latent + rope]` or of 8 bits, full of numbers.
    cache: Tensor,
    block_table: Vec<u32>,
    kv_b: Weight,
}

impl Case {
    fn new(seed: u64, positions: usize, block_size: usize, dtype: DType) -> Self {
        let mut random = Random::new(seed);
        let blocks = positions.div_ceil(block_size);
        let cache = filled_cache(&mut random, [blocks, block_size], SHAPE, dtype);
        let kv_b = random.dense(DenseDtype::Bf16, SHAPE.heads * (SHAPE.nope + SHAPE.value), SHAPE.latent);
        Self { block_table: random.permutation(blocks), random, cache, kv_b }
    }

    fn layer(&self) -> MlaLayer<'_> {
        MlaLayer { kv_b: &self.kv_b, shape: SHAPE, activations: Activations::F32 }
    }

    fn span(&self, start: usize, rows: usize) -> PagedSpan<'_> {
        PagedSpan { block_table: &self.block_table, start, rows }
    }

    fn queries(&mut self, rows: usize) -> Tensor {
        (self.random.tensor(&[rows, SHAPE.heads, SHAPE.nope + SHAPE.rope]) * 2.0).unwrap()
    }
}

#[test]
fn both_forms_equal_the_reference() {
    // Contexts inside one tile, at its edge, over several; first rows that see a whole tile or nothing of it.
    for (start, rows) in [(0, 1), (0, 9), (63, 1), (64, 2), (255, 3), (300, 5), (0, 270), (250, 30), (510, 4)]
    {
        for (block_size, dtype) in [(1, DType::F32), (16, DType::F32), (7, DType::BF16), (5, DType::U8)] {
            let mut case = Case::new(30, start + rows, block_size, dtype);
            let q = case.queries(rows);
            let span = case.span(start, rows);
            let expected = reference::mla(&q, &case.cache, case.layer(), span).unwrap();
            let what = format!("{rows} rows after {start}, blocks of {block_size}, {dtype:?}");
            let out = unwritten(&[rows, SHAPE.heads * SHAPE.value]);
            mla_decode(&q, &case.cache, case.layer(), &[span], &out).unwrap();
            assert_close(&format!("absorbed, {what}"), &out, &expected, 1e-4);
            let out = unwritten(&[rows, SHAPE.heads * SHAPE.value]);
            mla_prefill(&q, &case.cache, case.layer(), span, &out).unwrap();
            assert_close(&format!("expanded, {what}"), &out, &expected, 1e-4);
        }
    }
}

#[test]
fn rounded_attention_stays_near_the_reference_and_keeps_rows_apart() {
    for (start, rows, block_size) in
        [(0, 1, 16), (63, 3, 16), (100, 9, 7), (510, 5, 1), (250, 150, 16), (1530, 30, 16)]
    {
        let mut case = Case::new(34, start + rows, block_size, DType::BF16);
        let q = (case.queries(rows) * 0.25).unwrap();
        let layer = MlaLayer { activations: Activations::Rounded, ..case.layer() };
        let expected = reference::mla(&q, &case.cache, layer, case.span(start, rows)).unwrap();
        let out = unwritten(&[rows, SHAPE.heads * SHAPE.value]);
        mla_decode(&q, &case.cache, layer, &[case.span(start, rows)], &out).unwrap();
        // Queries and kv_b's inputs are rounded to eight bits of mantissa; in the expanded form keys, values (up to 10) and
        // weights too.
        let expanded = unwritten(&[rows, SHAPE.heads * SHAPE.value]);
        mla_prefill(&q, &case.cache, layer, case.span(start, rows), &expanded).unwrap();
        assert_close(&format!("expanded, {rows} rows after {start}"), &expanded, &expected, 6e-2);
        assert_close(&format!("{rows} rows after {start}"), &out, &expected, 2e-2);
        // Elsewhere more rows take matrix products.
        let rows = if rows_are_independent() || rows <= FEW_ROWS { rows } else { 0 };
        for row in 0..rows {
            let alone = unwritten(&[1, SHAPE.heads * SHAPE.value]);
            let (q, span) = (q.narrow(0, row, 1).unwrap(), case.span(start + row, 1));
            for (of_all, absorbed) in [(&out, true), (&expanded, false)] {
                if absorbed {
                    mla_decode(&q, &case.cache, layer, &[span], &alone).unwrap();
                } else {
                    mla_prefill(&q, &case.cache, layer, span, &alone).unwrap();
                }
                let row_of_all = of_all.narrow(0, row, 1).unwrap();
                assert_eq!(
                    numbers(&alone),
                    numbers(&row_of_all),
                    "row {row} after {start}, absorbed: {absorbed}"
                );
            }
        }
    }
}

#[test]
fn decode_serves_sequences_of_different_lengths() {
    let mut case = Case::new(31, 3000, 8, DType::F32);
    let q = case.queries(4);
    let other: Vec<u32> = case.block_table.iter().rev().copied().collect();
    let spans = [
        PagedSpan { block_table: &other, start: 2990, rows: 1 },
        case.span(0, 2),
        PagedSpan { block_table: &other, start: 100, rows: 1 },
    ];
    let out = unwritten(&[4, SHAPE.heads * SHAPE.value]);
    mla_decode(&q, &case.cache, case.layer(), &spans, &out).unwrap();
    let mut row = 0;
    for span in spans {
        let q = q.narrow(0, row, span.rows).unwrap();
        let expected = reference::mla(&q, &case.cache, case.layer(), span).unwrap();
        assert_close("row", &out.narrow(0, row, span.rows).unwrap(), &expected, 1e-4);
        row += span.rows;
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let mut case = Case::new(32, 600, 16, DType::F32);
    let q = (case.queries(40) * 1000.0).unwrap();
    let span = case.span(560, 40);
    let expected = reference::mla(&q, &case.cache, case.layer(), span).unwrap();
    for absorbed in [true, false] {
        let out = unwritten(&[40, SHAPE.heads * SHAPE.value]);
        if absorbed {
            mla_decode(&q, &case.cache, case.layer(), &[span], &out).unwrap();
        } else {
            mla_prefill(&q, &case.cache, case.layer(), span, &out).unwrap();
        }
        // Scores of thousands: their own rounding decides close races, so compare loosely; infinities would show.
        assert_close("large", &out, &expected, 2e-2);
    }
}

#[test]
fn written_entries_land_in_their_slots_and_nowhere_else() {
    let mut random = Random::new(33);
    for dtype in [DType::F32, DType::BF16] {
        let cache = random.tensor(&[9, 4, 8]).to_dtype(dtype).unwrap();
        let kv = random.tensor(&[8, 10]);
        let (latent, k_pe) = (kv.narrow(1, 0, 5).unwrap(), kv.narrow(1, 6, 3).unwrap());
        let spans = [
            PagedSpan { block_table: &[8, 2, 5], start: 3, rows: 6 },
            PagedSpan { block_table: &[0], start: 2, rows: 2 },
        ];
        let expected = reference::write_latents(&latent, &k_pe, &spans, &cache).unwrap();
        write_latents(&latent, &k_pe, &spans, &cache).unwrap();
        assert_close("cache", &cache, &expected, 0.0);
    }
}

#[test]
fn eight_bit_entries_equal_the_reference_bit_for_bit() {
    let mut random = Random::new(35);
    // One group and a part of one, one group, several; numbers over six orders of magnitude, and a row of zeros.
    for (latent, rope) in [(200, 6), (128, 2), (512, 64), (5, 3)] {
        let spans = [PagedSpan { block_table: &[1, 0], start: 2, rows: 5 }];
        let numbers = random.tensor(&[5, latent + rope]).to_vec2::<f32>().unwrap();
        let spread = numbers.iter().flatten().enumerate().map(|(index, number)| {
            if index / (latent + rope) == 3 { 0.0 } else { number * 10.0_f32.powi((index % 7) as i32 - 3) }
        });
        let kv = Tensor::from_vec(spread.collect::<Vec<_>>(), (5, latent + rope), &Device::Cpu).unwrap();
        let (c, k_pe) = (kv.narrow(1, 0, latent).unwrap(), kv.narrow(1, latent, rope).unwrap());
        let bytes = fp8_entry_bytes(latent, rope);
        let cache = Tensor::full(0xee_u8, (2, 4, bytes), &Device::Cpu).unwrap();
        let expected = reference::write_latents(&c, &k_pe, &spans, &cache).unwrap();
        write_latents(&c, &k_pe, &spans, &cache).unwrap();
        let bytes_of = |cache: &Tensor| cache.flatten_all().unwrap().to_vec1::<u8>().unwrap();
        assert_eq!(bytes_of(&cache), bytes_of(&expected));
        // Half a step of the coarsest code, 1/16 of the number, or of the smallest, 1/2 · 2^-9 · largest / 448.
        let shape = MlaShape { latent, rope, ..SHAPE };
        let read = reference::read_latents(&cache, &[1, 0], 7, shape).unwrap().narrow(0, 2, 5).unwrap();
        for (read, written) in read.to_vec2::<f32>().unwrap().iter().zip(kv.to_vec2::<f32>().unwrap()) {
            let largest = written[..latent].iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
            for (read, written) in read.iter().zip(&written) {
                assert!((read - written).abs() <= written.abs() / 16.0 + largest / 448.0 / 1024.0 + 1e-12);
            }
        }
    }
}

#[test]
fn blocks_go_out_and_come_back_as_they_were() {
    let mut random = Random::new(36);
    for dtype in [DType::F32, DType::BF16, DType::U8] {
        let cache = filled_cache(&mut random, [6, 3], SHAPE, dtype);
        let (before, mut bytes) = (cache.copy().unwrap(), vec![]);
        read_block(&cache, 4, &mut bytes).unwrap();
        write_block(&cache, 1, &bytes).unwrap();
        for block in 0..6 {
            let source = if block == 1 { 4 } else { block };
            let (now, expected) = (cache.get(block).unwrap(), before.get(source).unwrap());
            let numbers = |tensor: &Tensor| {
                tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            assert_eq!(numbers(&now), numbers(&expected), "block {block} of {dtype:?}");
        }
        assert!(read_block(&cache, 6, &mut bytes).unwrap_err().to_string().contains("block 6 of 6"));
        assert!(write_block(&cache, 0, &bytes[1..]).unwrap_err().to_string().contains("bytes of the block"));
    }
}

#[test]
fn short_and_wrong_block_tables_are_refused() {
    let case = Case::new(34, 40, 8, DType::F32);
    let (q, out) = (unwritten(&[1, SHAPE.heads, 26]), unwritten(&[1, SHAPE.heads * SHAPE.value]));
    for (block_table, message) in [(&[0, 1][..], "need 3 blocks"), (&[0, 1, 5][..], "block 5 of 5")] {
        let span = PagedSpan { block_table, start: 16, rows: 1 };
        let errors = [
            mla_decode(&q, &case.cache, case.layer(), &[span], &out).unwrap_err(),
            mla_prefill(&q, &case.cache, case.layer(), span, &out).unwrap_err(),
            write_latents(
                &Tensor::zeros((1, SHAPE.latent), DType::F32, &Device::Cpu).unwrap(),
                &Tensor::zeros((1, SHAPE.rope), DType::F32, &Device::Cpu).unwrap(),
                &[span],
                &case.cache,
            )
            .unwrap_err(),
        ];
        for error in errors {
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}
