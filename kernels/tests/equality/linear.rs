//! Linear layers and the embedding, in every weight format.

use std::io::Write as _;

use candle_core::{Device, Tensor};
use kimi_kernels::{
    Activations, DenseDtype, SharedBytes, Weight, WeightData, dequantize, embed, linear, multiplies_bf16,
    multiplies_bytes, reference, rows_are_independent,
};

use super::harness::{Random, assert_close, numbers, unwritten};

fn formats(random: &mut Random, out_features: usize, in_features: usize) -> Vec<(&'static str, Weight)> {
    vec![
        ("bf16", random.dense(DenseDtype::Bf16, out_features, in_features)),
        ("f16", random.dense(DenseDtype::F16, out_features, in_features)),
        ("f32", random.dense(DenseDtype::F32, out_features, in_features)),
        ("int4", random.int4(out_features, in_features)),
        ("fp8", random.fp8(out_features, in_features)),
    ]
}

#[test]
fn linear_equals_its_reference() {
    let mut random = Random::new(1);
    // Single elements, odd sizes, blocks that end early, enough work for all threads, more than one tile.
    for (out_features, in_features) in [(1, 1), (5, 33), (131, 257), (700, 640)] {
        for (format, weight) in formats(&mut random, out_features, in_features) {
            for rows in [1, 2, 16, 17, 70] {
                let x = random.tensor(&[rows, in_features]);
                let out = unwritten(&[rows, out_features]);
                linear(&x, &weight, Activations::F32, &out).unwrap();
                let what = format!("{format} [{out_features}, {in_features}] on {rows} rows");
                assert_close(&what, &out, &reference::linear(&x, &weight).unwrap(), 1e-4);
            }
        }
    }
}

#[test]
fn linear_reads_and_writes_views() {
    let mut random = Random::new(2);
    let weight = random.int4(24, 64);
    for rows in [3, 20] {
        let (wide, out) = (random.tensor(&[rows, 100]), unwritten(&[rows + 4, 24]));
        let x = wide.narrow(1, 30, 64).unwrap();
        linear(&x, &weight, Activations::F32, &out.narrow(0, 2, rows).unwrap()).unwrap();
        let expected = reference::linear(&x.contiguous().unwrap(), &weight).unwrap();
        assert_close("view", &out.narrow(0, 2, rows).unwrap(), &expected, 1e-4);
        let untouched = |row| numbers(&out.narrow(0, row, 2).unwrap()).iter().all(|n| *n == f32::MAX);
        assert!(untouched(0) && untouched(rows + 2), "rows outside the view were written");
    }
}

#[test]
fn int8_activations_equal_their_reference() {
    let mut random = Random::new(6);
    for (out_features, in_features) in [(1, 128), (5, 256), (67, 1536), (700, 640)] {
        let weight = random.int4_exact(out_features, in_features);
        for rows in [1, 2, 3, 5, 8, 9, 33] {
            let x = random.tensor(&[rows, in_features]);
            let out = unwritten(&[rows, out_features]);
            linear(&x, &weight, Activations::Rounded, &out).unwrap();
            let what = format!("int8 × int4 [{out_features}, {in_features}] on {rows} rows");
            let rounded = reference::round_to_int8(&x).unwrap();
            let x = if multiplies_bytes() { rounded } else { x };
            assert_close(&what, &out, &reference::linear(&x, &weight).unwrap(), 1e-3);
        }
    }
}

#[test]
fn bf16_activations_equal_their_reference() {
    let mut random = Random::new(9);
    // Columns that end inside of a block and of a pair among them.
    for (out_features, in_features) in [(1, 1), (5, 33), (67, 158), (700, 640)] {
        let weight = random.dense(DenseDtype::Bf16, out_features, in_features);
        for rows in [1, 2, 3, 5, 8, 9, 33] {
            let x = random.tensor(&[rows, in_features]);
            let out = unwritten(&[rows, out_features]);
            linear(&x, &weight, Activations::Rounded, &out).unwrap();
            let what = format!("bf16 × bf16 [{out_features}, {in_features}] on {rows} rows");
            let rounded = reference::round_to_bf16(&x).unwrap();
            let x = if multiplies_bf16() { rounded } else { x };
            assert_close(&what, &out, &reference::linear(&x, &weight).unwrap(), 1e-4);
        }
    }
}

#[test]
fn int8_weights_equal_their_reference() {
    let mut random = Random::new(8);
    for (out_features, in_features) in [(1, 128), (5, 256), (67, 1536), (700, 640)] {
        let stored = random.dense(DenseDtype::Bf16, out_features, in_features);
        let weight = stored.to_int8().unwrap().unwrap();
        assert_rounded(&stored, &weight);
        for rows in [1, 3, 8, 33] {
            let x = random.tensor(&[rows, in_features]);
            let out = unwritten(&[rows, out_features]);
            linear(&x, &weight, Activations::F32, &out).unwrap();
            let rounded = reference::round_to_int8(&x).unwrap();
            let x = if multiplies_bytes() { rounded } else { x };
            let what = format!("int8 [{out_features}, {in_features}] on {rows} rows");
            assert_close(&what, &out, &reference::linear(&x, &weight).unwrap(), 1e-3);
        }
    }
    assert!(random.dense(DenseDtype::Bf16, 3, 130).to_int8().unwrap().is_none(), "blocks that end early");
}

/// Each number within half a step of its group's largest over 127, and a little for the rounded scale.
fn assert_rounded(stored: &Weight, weight: &Weight) {
    let [exact, rounded] = [stored, weight].map(|weight| numbers(&dequantize(weight).unwrap()));
    for (exact, rounded) in exact.chunks(32).zip(rounded.chunks(32)) {
        let largest = exact.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
        let bound = largest * (0.5 / 127.0 + 1.0 / 256.0);
        assert!(exact.iter().zip(rounded).all(|(a, b)| (a - b).abs() <= bound), "{exact:?} {rounded:?}");
    }
}

#[test]
fn rounded_activations_keep_what_is_not_finite() {
    let mut random = Random::new(7);
    let weights = [random.int4(8, 256), random.dense(DenseDtype::Bf16, 8, 256)];
    let broken = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    for (weight, broken) in weights.iter().flat_map(|weight| broken.map(|broken| (weight, broken))) {
        let mut x = numbers(&random.tensor(&[3, 256]));
        x[256 + 200] = broken;
        let x = Tensor::from_vec(x, (3, 256), &Device::Cpu).unwrap();
        let out = unwritten(&[3, 8]);
        linear(&x, weight, Activations::Rounded, &out).unwrap();
        let finite = |row| numbers(&out.narrow(0, row, 1).unwrap()).iter().all(|n: &f32| n.is_finite());
        assert!(finite(0) && !finite(1) && finite(2), "{broken}");
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let mut random = Random::new(3);
    // Many rows are multiplied with some columns at a time: all of these at once, and not.
    for columns in [256, 640] {
        for (format, weight) in formats(&mut random, 300, columns) {
            for activations in [Activations::F32, Activations::Rounded] {
                // Elsewhere more rows take a matrix product.
                let rows = if rows_are_independent() { 70 } else { 16 };
                let x = random.tensor(&[rows, columns]);
                let together = unwritten(&[rows, 300]);
                linear(&x, &weight, activations, &together).unwrap();
                for row in 0..rows {
                    let alone = unwritten(&[1, 300]);
                    linear(&x.narrow(0, row, 1).unwrap(), &weight, activations, &alone).unwrap();
                    let expected = numbers(&together.narrow(0, row, 1).unwrap());
                    assert_eq!(numbers(&alone), expected, "{format} {activations:?}");
                }
            }
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let weight = Random::new(4).dense(DenseDtype::F32, 4, 8);
    for (x, out) in [([2, 7], [2, 4]), ([2, 8], [2, 5]), ([2, 8], [3, 4])] {
        let error = linear(&unwritten(&x), &weight, Activations::F32, &unwritten(&out)).unwrap_err();
        assert!(error.to_string().contains("linear:"), "{error}");
    }
}

#[test]
fn embed_equals_its_reference() {
    let mut random = Random::new(5);
    for (format, table) in formats(&mut random, 50, 40) {
        let ids = [0, 49, 7, 7, 31];
        let out = unwritten(&[5, 40]);
        embed(&table, &ids, &out).unwrap();
        assert_close(format, &out, &reference::embed(&table, &ids).unwrap(), 0.0);
        let error = embed(&table, &[50], &unwritten(&[1, 40])).unwrap_err().to_string();
        assert!(error.contains("token id 50 is outside the vocabulary of 50"), "{error}");
    }
}

#[test]
fn a_weight_of_a_file_becomes_one_in_8_bits_and_stays_as_it_is() {
    let mut random = Random::new(31);
    let weight = random.dense(DenseDtype::Bf16, 96, 256);
    let WeightData::Dense { dtype, bytes } = &weight.data else { unreachable!("dense") };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    // SAFETY: nobody else has this file.
    #[expect(unsafe_code, reason = "mapping a file")]
    let map = unsafe { memmap2::Mmap::map(&file).unwrap() };
    let data = WeightData::Dense { dtype: *dtype, bytes: SharedBytes::of_file(map) };
    let of_file = Weight { data, ..weight.clone() };
    let read = |weight: &Weight| numbers(&dequantize(weight).unwrap());
    let [found, expected] = [&of_file, &weight].map(|weight| read(&weight.to_int8().unwrap().unwrap()));
    assert_eq!(found, expected);
    // Its memory was given back; the file is still there.
    assert_eq!(read(&of_file), read(&weight));
}
