//! How long prompts and answers are.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, LogNormal};

/// A draw is at most so many times the mean, lest one request outweigh a run.
const CAP: f64 = 16.0;

/// A distribution of lengths, in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lengths {
    /// Always the same.
    Fixed(f64),
    /// Many short, few long: the logarithm is normal with standard deviation `sigma`, the median is
    /// mean · exp(−sigma²/2).
    LogNormal { mean: f64, sigma: f64 },
}

impl Lengths {
    /// Every length times `factor`.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        match self {
            Self::Fixed(length) => Self::Fixed(length * factor),
            Self::LogNormal { mean, sigma } => Self::LogNormal { mean: mean * factor, sigma },
        }
    }

    /// One length, at least 1.
    pub(crate) fn draw(self, random: &mut ChaCha8Rng) -> usize {
        let length = match self {
            Self::Fixed(length) => length,
            Self::LogNormal { mean, sigma } => {
                let mu = mean.ln() - sigma * sigma / 2.0;
                LogNormal::new(mu, sigma).map_or(mean, |normal| normal.sample(random)).min(CAP * mean)
            }
        };
        (length.round() as usize).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::stream;

    #[test]
    fn draws_have_the_documented_mean_and_median() {
        for (mean, sigma) in [(256.0, 1.0), (16_384.0, 0.5), (128.0, 0.7_f64)] {
            let mut random = stream(1, 0);
            let lengths = Lengths::LogNormal { mean, sigma };
            let mut draws: Vec<f64> = (0..100_000).map(|_| lengths.draw(&mut random) as f64).collect();
            let found = draws.iter().sum::<f64>() / draws.len() as f64;
            assert!((found / mean - 1.0).abs() < 0.02, "mean {found}, documented {mean}");
            draws.sort_unstable_by(f64::total_cmp);
            let median = mean * (-sigma * sigma / 2.0).exp();
            assert!((draws[50_000] / median - 1.0).abs() < 0.02, "median {}, not {median}", draws[50_000]);
            assert!(draws[99_999] <= CAP * mean);
        }
    }

    #[test]
    fn a_factor_scales_every_length() {
        assert_eq!(Lengths::Fixed(100.0).scaled(0.25).draw(&mut stream(1, 0)), 25);
        assert_eq!(Lengths::Fixed(100.0).scaled(1e-6).draw(&mut stream(1, 0)), 1);
        let drawn =
            |factor| Lengths::LogNormal { mean: 1e6, sigma: 1.0 }.scaled(factor).draw(&mut stream(5, 9));
        assert!(drawn(1.0).abs_diff(drawn(0.5) * 2) <= 1);
    }
}
