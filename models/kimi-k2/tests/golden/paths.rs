//! One answer, whatever way the tokens take: at once, in chunks, one by one, alone or with others.

use candle_core::Tensor;
use kimi_k2::{AttentionForm, CacheDtype, KvPool};

use super::harness::{
    Golden, Sequence, TOLERANCE, advance, assert_close, load, logits_in_chunks, max_difference, models,
};

fn ids() -> Vec<u32> {
    Golden::open(&models().join("golden/tiny-golden.safetensors")).ids("text.ids")
}

#[test]
fn chunks_of_any_size_give_the_same_logits() {
    let ids = ids();
    let whole = Golden::open(&models().join("golden/tiny-golden.safetensors")).floats("text.logits");
    for form in [AttentionForm::Auto, AttentionForm::Expanded, AttentionForm::Absorbed] {
        let model = load(&models().join("golden/tiny-int4"), form);
        for chunk in [1, 2, 7, 17, ids.len()] {
            let logits = logits_in_chunks(&model, &ids, chunk, CacheDtype::F32);
            assert_close(&format!("{form:?}, chunks of {chunk}"), &logits, &whole, TOLERANCE);
        }
    }
}

#[test]
fn others_in_the_batch_change_nothing() {
    let model = load(&models().join("golden/tiny-int4"), AttentionForm::Auto);
    let ids = ids();
    let prompts = [ids.clone(), ids[3..20].to_vec(), ids.iter().rev().copied().collect()];
    // Interleaved blocks: sequence i owns every third one.
    let mut kv = KvPool::new(model.config(), 30, 3, CacheDtype::F32).unwrap();
    let mut sequences: Vec<Sequence> = (0_u32..)
        .zip(&prompts)
        .map(|(first, ids)| Sequence {
            ids: ids.clone(),
            computed: 0,
            block_table: (0..10).map(|block| (block * 7 % 10) * 3 + first).collect(),
        })
        .collect();
    let mut logits: [Vec<Tensor>; 3] = Default::default();
    // Prefill beside decode beside nothing, in changing roles.
    for counts in [[5, 0, 20], [1, 16, 1], [17, 1, 1], [1, 0, 2]] {
        let result = advance(&model, &mut kv, &mut sequences, &counts);
        let mut row = 0;
        for (logits, count) in logits.iter_mut().zip(counts).filter(|(_, count)| *count > 0) {
            logits.push(result.narrow(0, row, count).unwrap());
            row += count;
        }
    }
    for ((sequence, logits), prompt) in sequences.iter().zip(&logits).zip(&prompts) {
        assert_eq!(sequence.computed, prompt.len());
        let alone = logits_in_chunks(&model, prompt, prompt.len(), CacheDtype::F32);
        assert_close("with others", &Tensor::cat(logits, 0).unwrap(), &alone, TOLERANCE);
    }
}

#[test]
fn decode_in_a_batch_is_bit_equal_to_decode_alone() {
    let model = load(&models().join("golden/tiny-int4"), AttentionForm::Auto);
    let ids = ids();
    let mut kv = KvPool::new(model.config(), 6 * ids.len(), 1, CacheDtype::Bf16).unwrap();
    let mut sequences: Vec<Sequence> = (0..6)
        .map(|first: u32| Sequence {
            ids: ids.iter().cycle().skip(first as usize).take(ids.len()).copied().collect(),
            computed: 0,
            block_table: (0..ids.len() as u32).map(|block| block * 6 + first).collect(),
        })
        .collect();
    let together: Vec<Tensor> =
        (0..ids.len()).map(|_| advance(&model, &mut kv, &mut sequences, &[1; 6])).collect();
    for (index, sequence) in sequences.iter().enumerate() {
        let alone = logits_in_chunks(&model, &sequence.ids, 1, CacheDtype::Bf16);
        for (position, logits) in together.iter().enumerate() {
            let (a, b) = (logits.get(index).unwrap(), alone.get(position).unwrap());
            assert_eq!(a.to_vec1::<f32>().unwrap(), b.to_vec1::<f32>().unwrap(), "position {position}");
        }
    }
}

/// Rounding the cache may tip a router that was undecided, and then a whole position changes; most must not.
#[test]
fn a_rounded_cache_stays_close() {
    let model = load(&models().join("golden/tiny-int4"), AttentionForm::Auto);
    let ids = ids();
    let exact = logits_in_chunks(&model, &ids, 5, CacheDtype::F32);
    for (dtype, bound) in [(CacheDtype::Bf16, 0.05), (CacheDtype::Fp8, 0.8)] {
        let rounded = logits_in_chunks(&model, &ids, 5, dtype);
        let mut differences: Vec<f32> = (0..ids.len())
            .map(|row| max_difference(&exact.get(row).unwrap(), &rounded.get(row).unwrap()))
            .collect();
        differences.sort_by(f32::total_cmp);
        assert!(differences[0] > 0.0 && differences[ids.len() * 3 / 4] < bound, "{dtype:?}: {differences:?}");
    }
}

/// What left the cache and came back into other blocks, of another cache, is what was computed.
#[test]
fn blocks_that_moved_give_the_same_logits() {
    const BLOCK: usize = 3;
    let model = load(&models().join("golden/tiny-int4"), AttentionForm::Auto);
    let (ids, half) = (ids(), 4 * BLOCK);
    for dtype in [CacheDtype::F32, CacheDtype::Bf16, CacheDtype::Fp8] {
        let blocks = ids.len().div_ceil(BLOCK) as u32;
        let pool = || KvPool::new(model.config(), blocks as usize, BLOCK, dtype).unwrap();
        let sequence = |block_table: Vec<u32>| Sequence {
            ids: ids.clone(),
            computed: 0,
            block_table: block_table.into(),
        };
        let (mut first, mut second) = (pool(), pool());
        let mut whole = [sequence((0..blocks).collect())];
        advance(&model, &mut first, &mut whole, &[half]);
        for block in 0..half / BLOCK {
            let bytes = first.read_block(block as u32).unwrap();
            assert_eq!(bytes.len(), KvPool::bytes_per_token(model.config(), dtype) * BLOCK);
            second.write_block(blocks - 1 - block as u32, &bytes).unwrap();
        }
        let mut moved = [sequence((0..blocks).rev().collect())];
        moved[0].computed = half;
        let expected = advance(&model, &mut first, &mut whole, &[ids.len() - half]);
        let found = advance(&model, &mut second, &mut moved, &[ids.len() - half]);
        assert!(max_difference(&found, &expected) <= 0.0, "{dtype:?}");
    }
}
