//! A softmax over scores that arrive in pieces.

use crate::vectorized::{largest, sum, vectorized};

/// The largest score so far and the sum of `e^(score - largest)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunningSoftmax {
    largest: f32,
    sum: f32,
}

impl Default for RunningSoftmax {
    fn default() -> Self {
        Self { largest: f32::NEG_INFINITY, sum: 0.0 }
    }
}

impl RunningSoftmax {
    /// Takes more scores and turns them into weights. Returns the factor that what was accumulated with earlier
    /// weights must be multiplied by.
    pub(crate) fn update(&mut self, scores: &mut [f32]) -> f32 {
        let largest = largest(scores, self.largest);
        // No score is -∞ here: masked positions are left out, not marked. NaN passes through to the output.
        let correction = if self.sum == 0.0 { 0.0 } else { (self.largest - largest).exp() };
        exp_of_difference(scores, largest);
        self.sum = self.sum * correction + sum(scores);
        self.largest = largest;
        correction
    }

    /// Takes the scores of another softmax. Returns the factors that what was accumulated with the weights of each must be
    /// multiplied by.
    pub(crate) fn merge(&mut self, other: Self) -> [f32; 2] {
        let largest = self.largest.max(other.largest);
        let factor = |part: Self| if part.sum == 0.0 { 0.0 } else { (part.largest - largest).exp() };
        let factors = [factor(*self), factor(other)];
        *self = Self { largest, sum: self.sum * factors[0] + other.sum * factors[1] };
        factors
    }

    /// The factor that makes all weights sum to one.
    pub(crate) fn normalizer(self) -> f32 {
        1.0 / self.sum
    }
}

/// `e^x`, zero below -87 and as if `x` were 88 above that.
///
/// Cody-Waite range reduction and a polynomial of degree 6 (Cephes' `expf`), branch-free so that it vectorizes:
/// the library's `exp` is a call for each number. Relative error below 2e-7.
#[inline]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 * 2^23 rounds to the nearest integer, which is then the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let clamped = if clamped > 88.0 { 88.0 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let power = shifted - ROUND;
    let rest = clamped - power * LN2_HIGH - power * LN2_LOW;
    let mut sum = 1.987_569_2e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        sum = sum * rest + coefficient;
    }
    let mantissa = sum * rest * rest + rest + 1.0;
    // No conversion: `as` saturates, which keeps the loop from becoming vectors.
    let exponent = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { mantissa * exponent }
}

vectorized! {
    /// `x[i] = e^(x[i] - largest)` for `x[i] <= largest`.
    fn exp_of_difference(x: &mut [f32], largest: f32) {
        for x in x.iter_mut() {
            *x = exp(*x - largest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_accurate_to_the_last_bits() {
        for step in 0..87_000 {
            let x = -(step as f32) / 1000.0;
            let mut y = [x + 3.0];
            exp_of_difference(&mut y, 3.0);
            let exact = f64::from((x + 3.0) - 3.0).exp();
            let error = (f64::from(y[0]) - exact).abs() / exact;
            assert!(error < 3e-7, "exp({x}): relative error {error}");
        }
        let mut edge = [f32::NAN, -200.0, 0.0];
        exp_of_difference(&mut edge, 0.0);
        assert!(edge[0].is_nan());
        assert_eq!(edge[1..].iter().map(|x| x.to_bits()).collect::<Vec<_>>(), [0, 1.0_f32.to_bits()]);
    }

    #[test]
    fn pieces_give_the_softmax_of_the_whole() {
        let scores = [0.3, -2.0, 5.0, 1.0, 7.5, -30.0, 7.4];
        let total: f32 = scores.iter().map(|s: &f32| (s - 7.5).exp()).sum();
        for split in 1..scores.len() {
            let mut weights = scores;
            let mut softmax = RunningSoftmax::default();
            let (first, second) = weights.split_at_mut(split);
            softmax.update(first);
            let correction = softmax.update(second);
            for weight in first.iter_mut() {
                *weight *= correction;
            }
            for (weight, score) in weights.iter().zip(scores) {
                let expected = (score - 7.5).exp() / total;
                assert!((weight * softmax.normalizer() - expected).abs() < 1e-6);
            }
        }
    }
}
