//! Parts of weights: the numbers of the whole, wherever it may be cut.

use std::ops::Range;

use kimi_kernels::{DenseDtype, Weight, dequantize};

use super::harness::{Random, numbers};

fn assert_part(weight: &Weight, rows: Range<usize>, columns: Range<usize>) {
    let part = weight.part(rows.clone(), columns.clone()).unwrap();
    assert_eq!((part.out_features, part.in_features), (rows.len(), columns.len()));
    let whole = dequantize(weight).unwrap();
    let whole =
        whole.narrow(0, rows.start, rows.len()).unwrap().narrow(1, columns.start, columns.len()).unwrap();
    assert_eq!(numbers(&dequantize(&part).unwrap()), numbers(&whole), "rows {rows:?}, columns {columns:?}");
}

#[test]
fn parts_have_the_numbers_of_the_whole() {
    let mut random = Random::new(70);
    let dense = random.dense(DenseDtype::Bf16, 7, 11);
    let int4 = random.int4(5, 160);
    let int4_tail = random.int4(3, 72);
    let fp8 = random.fp8(300, 270);
    for weight in [&dense, &int4, &int4_tail, &fp8] {
        assert_part(weight, 0..weight.out_features, 0..weight.in_features);
    }
    assert_part(&dense, 3..6, 0..11);
    assert_part(&dense, 0..7, 2..9);
    assert_part(&dense, 1..2, 10..11);
    assert_part(&int4, 1..4, 32..128);
    assert_part(&int4_tail, 0..3, 64..72);
    assert_part(&fp8, 128..300, 0..270);
    assert_part(&fp8, 0..256, 128..270);
    let int8 = random.dense(DenseDtype::F32, 6, 384).to_int8().unwrap().unwrap();
    assert_part(&int8, 2..5, 128..384);
}

#[test]
fn what_shares_a_word_or_a_scale_is_not_cut_apart() {
    let mut random = Random::new(71);
    let (int4, fp8) = (random.int4(5, 160), random.fp8(300, 270));
    let refused = [
        (&int4, 0..5, 0..16, "columns 0..16 of 160"),
        (&int4, 0..5, 32..200, "columns 32..200 of 160"),
        (&int4, 4..6, 0..160, "rows 4..6 of 5"),
        (&fp8, 64..300, 0..270, "rows 64..300 of 300"),
        (&fp8, 0..300, 128..200, "columns 128..200 of 270"),
    ];
    for (weight, rows, columns, message) in refused {
        let error = weight.part(rows, columns).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
