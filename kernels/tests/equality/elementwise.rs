//! Normalization, activation, addition, rotation.

use candle_core::Tensor;
use kimi_kernels::{RopeTable, add_assign, reference, rms_norm, rope_interleaved};

use super::harness::{Random, assert_close, numbers, unwritten};

#[test]
fn rms_norm_equals_its_reference_also_on_views() {
    let mut random = Random::new(10);
    for width in [1, 7, 64, 200] {
        let weight = random.tensor(&[width]);
        let wide = random.tensor(&[5, width + 9]);
        let x = wide.narrow(1, 4, width).unwrap();
        let out = unwritten(&[5, width]);
        rms_norm(&x, &weight, 1e-5, &out).unwrap();
        assert_close("rms_norm", &out, &reference::rms_norm(&x, &weight, 1e-5).unwrap(), 1e-5);
    }
    // The epsilon is what keeps a row of zeros finite.
    let (zeros, out) = (unwritten(&[1, 8]).zeros_like().unwrap(), unwritten(&[1, 8]));
    rms_norm(&zeros, &random.tensor(&[8]), 1e-6, &out).unwrap();
    assert_eq!(numbers(&out), [0.0; 8]);
}

#[test]
fn add_assign_equals_its_reference() {
    let mut random = Random::new(12);
    let (y, x) = (random.tensor(&[3, 41]), random.tensor(&[3, 41]));
    let expected = reference::add_assign(&y, &x).unwrap();
    add_assign(&y, &x).unwrap();
    assert_close("add_assign", &y, &expected, 0.0);
}

#[test]
fn rope_equals_its_reference_and_leaves_neighbours_alone() {
    let mut random = Random::new(13);
    let table = RopeTable { inv_freq: vec![1.0, 0.13, 0.0071], multiplier: 1.25 };
    let positions = [0, 1, 5000, 262_143];
    let q = random.tensor(&[4, 3, 10]);
    let before = q.copy().unwrap();
    let expected = reference::rope_interleaved(&q.narrow(2, 4, 6).unwrap(), &positions, &table).unwrap();
    rope_interleaved(&q.narrow(2, 4, 6).unwrap(), &table.rotations(&positions)).unwrap();
    assert_close("rotated", &q.narrow(2, 4, 6).unwrap(), &expected, 1e-5);
    assert_close("others", &q.narrow(2, 0, 4).unwrap(), &before.narrow(2, 0, 4).unwrap(), 0.0);
}

#[test]
fn rope_turns_each_pair_by_its_angle() {
    let x = Tensor::new(&[[1.0_f32, 0.0, 0.0, 2.0]], &candle_core::Device::Cpu).unwrap();
    let table = RopeTable { inv_freq: vec![0.5, 0.1], multiplier: 1.0 };
    rope_interleaved(&x, &table.rotations(&[3])).unwrap();
    let (first, second) = (1.5_f32, 3.0_f32 * 0.1);
    assert_eq!(numbers(&x), [first.cos(), first.sin(), -2.0 * second.sin(), 2.0 * second.cos()]);
}
