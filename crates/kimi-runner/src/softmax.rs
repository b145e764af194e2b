//! Maxima and exponentials over a vocabulary, written so that the compiler turns them into SIMD.
//!
//! A K2.6 row has 163,840 logits; `f32::exp` calls a scalar library function for each. [`exp_negative`] is a polynomial
//! instead, and every loop keeps [`LANES`] independent accumulators, because the compiler may not reorder a float sum.

/// Independent accumulators of the loops below; a multiple of every SIMD width.
const LANES: usize = 16;

/// Values summed in f32 before the sum moves to f64, so that long rows lose no precision.
const BLOCK: usize = 64 * LANES;

/// The largest of `logits`, or `None` when no probability can be made of them: one is NaN or `+inf`, all are `-inf`, or
/// there are none. Single `-inf` values are fine; they mean "never".
pub(crate) fn finite_max(logits: &[f32]) -> Option<f32> {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut all_below_infinity = true;
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            all_below_infinity &= value < f32::INFINITY; // false for NaN too
            *lane = if value > *lane { value } else { *lane };
        }
    }
    for &value in rest {
        all_below_infinity &= value < f32::INFINITY;
        lanes[0] = lanes[0].max(value);
    }
    let max = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (all_below_infinity && max > f32::NEG_INFINITY).then_some(max)
}

/// Turns logits into unnormalized probabilities in place: `exp((x - max) * inverse_temperature)`, so the largest is 1.
pub(crate) fn exp_weights(logits: &mut [f32], max: f32, inverse_temperature: f32) {
    for value in logits {
        *value = exp_negative((*value - max) * inverse_temperature);
    }
}

/// `ln Σ exp(x)` over finite logits (see [`finite_max`] for `max`).
pub(crate) fn log_sum_exp(logits: &[f32], max: f32) -> f64 {
    f64::from(max) + sum_by(logits, |value| exp_negative(value - max)).ln()
}

/// Sum of non-negative numbers.
pub(crate) fn sum(values: &[f32]) -> f64 {
    sum_by(values, |value| value)
}

/// Sum of `f(x)`: f32 within a block, f64 across blocks.
fn sum_by(values: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    values
        .chunks(BLOCK)
        .map(|block| {
            let mut lanes = [0.0_f32; LANES];
            let (chunks, rest) = block.as_chunks::<LANES>();
            for chunk in chunks {
                for (lane, &value) in lanes.iter_mut().zip(chunk) {
                    *lane += f(value);
                }
            }
            f64::from(lanes.iter().sum::<f32>() + rest.iter().map(|&value| f(value)).sum::<f32>())
        })
        .sum()
}

/// `e^x` for `x <= 0` to about 1e-7 relative; exactly 0 below -87, where f32 runs out, and for `-inf`.
///
/// The usual split `x = n ln 2 + r`, `|r| <= ln 2 / 2`: `2^n` is written into the exponent bits and `e^r` is the
/// minimax polynomial of Cephes' `expf`. Adding 1.5 * 2^23 rounds to an integer without a rounding instruction.
#[inline]
#[expect(clippy::excessive_precision, reason = "the coefficients as Cephes prints them")]
fn exp_negative(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
    const LN2_HIGH: f32 = 0.693_359_375;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut polynomial = 1.987_569_150_0e-4;
    for coefficient in
        [1.398_199_950_7e-3, 8.333_451_907_3e-3, 4.166_579_589_4e-2, 1.666_666_545_9e-1, 5.000_000_120_1e-1]
    {
        polynomial = polynomial * r + coefficient;
    }
    let e_to_r = polynomial * r * r + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    if x < -87.0 { 0.0 } else { e_to_r * f32::from_bits(exponent) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_as_good_as_f32() {
        let mut worst = 0.0_f64;
        for i in 0..870_000 {
            let x = -i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp_negative(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.5e-7, "relative error {worst}");
        let exact = [(0.0, 1.0_f32), (-88.0, 0.0), (-1e30, 0.0), (f32::NEG_INFINITY, 0.0)];
        for (x, expected) in exact {
            assert_eq!(exp_negative(x).to_bits(), expected.to_bits(), "e^{x}");
        }
    }

    #[test]
    fn maximum_refuses_what_is_no_distribution_wherever_it_hides() {
        for len in [1, 15, 16, 17, 100] {
            for bad in [f32::NAN, f32::INFINITY] {
                for position in 0..len {
                    let mut logits = vec![0.5; len];
                    logits[position] = bad;
                    assert_eq!(finite_max(&logits), None, "{bad} at {position} of {len}");
                }
            }
            let mut masked = vec![f32::NEG_INFINITY; len];
            assert_eq!(finite_max(&masked), None, "nothing is possible");
            masked[len - 1] = -3.0;
            assert_eq!(finite_max(&masked), Some(-3.0), "one token is possible");
        }
        assert_eq!(finite_max(&[]), None);
    }

    #[test]
    fn log_sum_exp_agrees_with_f64() {
        let logits: Vec<f32> =
            (0..10_007_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 * 1e-6 - 8.0).collect();
        let exact = logits.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        let max = finite_max(&logits).unwrap();
        assert!((log_sum_exp(&logits, max) - exact).abs() < 1e-6);
    }
}
