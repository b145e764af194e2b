//! Linear layers and the embedding, in every weight format.

use kimi_kernels::{DenseDtype, Weight, embed, linear, reference};

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
                linear(&x, &weight, &out).unwrap();
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
        linear(&x, &weight, &out.narrow(0, 2, rows).unwrap()).unwrap();
        let expected = reference::linear(&x.contiguous().unwrap(), &weight).unwrap();
        assert_close("view", &out.narrow(0, 2, rows).unwrap(), &expected, 1e-4);
        let untouched = |row| numbers(&out.narrow(0, row, 2).unwrap()).iter().all(|n| *n == f32::MAX);
        assert!(untouched(0) && untouched(rows + 2), "rows outside the view were written");
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours() {
    let mut random = Random::new(3);
    let weight = random.dense(DenseDtype::Bf16, 300, 256);
    let x = random.tensor(&[16, 256]);
    let together = unwritten(&[16, 300]);
    linear(&x, &weight, &together).unwrap();
    for row in 0..16 {
        let alone = unwritten(&[1, 300]);
        linear(&x.narrow(0, row, 1).unwrap(), &weight, &alone).unwrap();
        assert_eq!(numbers(&alone), numbers(&together.narrow(0, row, 1).unwrap()));
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let weight = Random::new(4).dense(DenseDtype::F32, 4, 8);
    for (x, out) in [([2, 7], [2, 4]), ([2, 8], [2, 5]), ([2, 8], [3, 4])] {
        let error = linear(&unwritten(&x), &weight, &unwritten(&out)).unwrap_err();
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
