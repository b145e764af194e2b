//! Feed-forward blocks, one and many, in every weight format.

use kimi_kernels::{Activations, DenseDtype, GatedMlp, Weight, gated_mlps, reference};

use super::harness::{Random, assert_close, numbers, unwritten};

/// gate, up and down.
fn weights(hidden: usize, inner: usize, mut make: impl FnMut(usize, usize) -> Weight) -> [Weight; 3] {
    [make(inner, hidden), make(inner, hidden), make(hidden, inner)]
}

fn block<'a>([gate, up, down]: &'a [Weight; 3], rows: &'a [u32], shares: &'a [f32]) -> GatedMlp<'a> {
    GatedMlp { gate, up, down, rows, shares }
}

#[test]
fn gated_mlps_equal_their_reference() {
    let mut random = Random::new(30);
    // Odd sizes, and enough work for all threads.
    for (hidden, inner) in [(33, 20), (160, 96), (256, 384)] {
        let blocks = [
            weights(hidden, inner, |out, columns| random.int4(out, columns)),
            weights(hidden, 2 * inner, |out, columns| random.dense(DenseDtype::Bf16, out, columns)),
            weights(hidden, inner, |out, columns| random.fp8(out, columns)),
        ];
        let blocks = [
            block(&blocks[0], &[0, 3, 4], &[0.5, 2.0, 1.0]),
            block(&blocks[1], &[0, 1, 2, 3, 4], &[1.0; 5]),
            block(&blocks[2], &[], &[]),
            block(&blocks[2], &[2], &[0.25]),
        ];
        let x = (random.tensor(&[5, hidden]) * 0.1).unwrap();
        let wide = random.tensor(&[6, hidden + 7]);
        let out = wide.narrow(0, 1, 5).unwrap().narrow(1, 3, hidden).unwrap();
        let expected = reference::gated_mlps(&x, &blocks).unwrap();
        gated_mlps(&x, &blocks, Activations::F32, &out).unwrap();
        assert_close(&format!("[{hidden}, {inner}]"), &out, &expected, 2e-3);
    }
}

#[test]
fn a_token_does_not_depend_on_its_neighbours() {
    let mut random = Random::new(31);
    let experts: Vec<_> =
        (0..3).map(|_| weights(256, 128, |out, columns| random.int4(out, columns))).collect();
    let x = random.tensor(&[16, 256]);
    let rows: Vec<u32> = (0..16).collect();
    for activations in [Activations::F32, Activations::Rounded] {
        let together = unwritten(&[16, 256]);
        let blocks: Vec<_> = experts.iter().map(|expert| block(expert, &rows, &[0.5; 16])).collect();
        gated_mlps(&x, &blocks, activations, &together).unwrap();
        for row in 0..16 {
            let alone = unwritten(&[1, 256]);
            let blocks: Vec<_> = experts.iter().map(|expert| block(expert, &[0], &[0.5])).collect();
            gated_mlps(&x.narrow(0, row, 1).unwrap(), &blocks, activations, &alone).unwrap();
            assert_eq!(numbers(&alone), numbers(&together.narrow(0, row, 1).unwrap()), "{activations:?}");
        }
    }
}

#[test]
fn contradicting_sizes_are_refused() {
    let mut random = Random::new(32);
    let mut make = |out, columns| random.dense(DenseDtype::F32, out, columns);
    let (right, wrong) = (weights(8, 4, &mut make), [make(4, 8), make(5, 8), make(8, 4)]);
    for (weights, rows, shares) in
        [(&wrong, &[0_u32][..], &[1.0_f32][..]), (&right, &[2], &[1.0]), (&right, &[0], &[1.0, 1.0])]
    {
        let blocks = [block(weights, rows, shares)];
        let error =
            gated_mlps(&unwritten(&[2, 8]), &blocks, Activations::F32, &unwritten(&[2, 8])).unwrap_err();
        assert!(error.to_string().contains("gated_mlps:"), "{error}");
    }
}
