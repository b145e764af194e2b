//! The ops of the vision tower.

use kimi_kernels::{
    Activation, Activations, LayerNormWeights, add_bias, full_attention, layer_norm, reference, rope_grid,
};

use super::harness::{Random, assert_close, numbers, unwritten};

#[test]
fn layer_norm_equals_its_reference_also_on_views() {
    let mut random = Random::new(20);
    for (rows, width) in [(1, 1), (5, 7), (40, 64), (3, 1152)] {
        let (weight, bias) = (numbers(&random.tensor(&[width])), numbers(&random.tensor(&[width])));
        let weights = LayerNormWeights { weight: &weight, bias: &bias, eps: 1e-5 };
        let x = random.tensor(&[rows, width + 9]).narrow(1, 4, width).unwrap();
        let out = unwritten(&[rows, width]);
        layer_norm(&x, weights, &out).unwrap();
        assert_close("layer_norm", &out, &reference::layer_norm(&x, weights).unwrap(), 1e-5);
    }
}

#[test]
fn bias_and_activation_equal_their_reference_and_leave_neighbours_alone() {
    let mut random = Random::new(21);
    for (rows, width) in [(1, 1), (50, 96), (20, 4304)] {
        let bias = numbers(&random.tensor(&[width]));
        for activation in [Activation::None, Activation::GeluTanh] {
            // Up to ±40, where the activation's exponential saturates.
            let wide = (random.tensor(&[rows, width + 3]) * 40.0).unwrap();
            let before = wide.copy().unwrap();
            let y = wide.narrow(1, 2, width).unwrap();
            let expected = reference::add_bias(&y, &bias, activation).unwrap();
            add_bias(&y, &bias, activation).unwrap();
            assert_close("biased", &y, &expected, 1e-5);
            let others = |x: &candle_core::Tensor| x.narrow(1, 0, 2).unwrap();
            assert_close("others", &others(&wide), &others(&before), 0.0);
        }
    }
}

#[test]
fn rope_in_two_dimensions_equals_its_reference() {
    let mut random = Random::new(22);
    let (heads, inv_freq) = (3, [1.0, 0.13, 0.0071]);
    let places: Vec<[u32; 2]> =
        (0..40).map(|_| [random.below(512) as u32, random.below(512) as u32]).collect();
    let wide = random.tensor(&[40, 3 * heads * 12]);
    let before = wide.copy().unwrap();
    let x = wide.narrow(1, 0, 2 * heads * 12).unwrap();
    let expected = reference::rope_grid(&x, &places, &inv_freq).unwrap();
    rope_grid(&x, &places, &inv_freq).unwrap();
    assert_close("rotated", &x, &expected, 1e-5);
    let others = |x: &candle_core::Tensor| x.narrow(1, 2 * heads * 12, heads * 12).unwrap();
    assert_close("others", &others(&wide), &others(&before), 0.0);
}

/// Tokens of less than a tile, of several tiles, and of several parts.
#[test]
fn full_attention_equals_its_reference() {
    let mut random = Random::new(23);
    for (tokens, heads, width) in [(1, 1, 4), (60, 4, 16), (300, 2, 72), (1030, 1, 8)] {
        let qkv = (random.tensor(&[tokens, 3 * heads * width]) * 3.0).unwrap();
        let expected = reference::full_attention(&qkv, heads).unwrap();
        for (activations, tolerance) in [(Activations::F32, 1e-5), (Activations::Rounded, 3e-2)] {
            let out = unwritten(&[tokens, heads * width]);
            full_attention(&qkv, heads, activations, &out).unwrap();
            assert_close("full_attention", &out, &expected, tolerance);
        }
    }
}
