//! When requests arrive in an open loop.

use std::time::Duration;

use rand_distr::{Distribution as _, Exp};

use crate::text::stream;

/// The seed's random stream that decides arrivals; conversations count up from 0.
const STREAM: u64 = u64::MAX;

/// Arrivals of a Poisson process: independent exponential gaps with mean 1/`rate` seconds, until `duration`.
///
/// At least one, so that a short measurement with a small rate asks something.
pub(crate) fn poisson(rate: f64, duration: Duration, seed: u64) -> Vec<Duration> {
    let Ok(gaps) = Exp::new(rate) else { return Vec::new() };
    let mut random = stream(seed, STREAM);
    let mut arrivals = Vec::new();
    let mut time = gaps.sample(&mut random).min(duration.as_secs_f64());
    loop {
        arrivals.push(Duration::from_secs_f64(time));
        time += gaps.sample(&mut random);
        if time >= duration.as_secs_f64() {
            return arrivals;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_have_the_rate_and_the_spread_of_a_poisson_process() {
        for rate in [0.5, 20.0] {
            let arrivals = poisson(rate, Duration::from_secs_f64(20_000.0 / rate), 3);
            // A count of mean 20,000 has standard deviation 141.
            assert!(arrivals.len().abs_diff(20_000) < 600, "{} arrivals", arrivals.len());
            let times: Vec<f64> = arrivals.iter().map(Duration::as_secs_f64).collect();
            let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            assert!((mean * rate - 1.0).abs() < 0.03, "mean gap {mean}");
            assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "an exponential's deviation is its mean");
        }
    }

    #[test]
    fn a_seed_always_gives_the_same_arrivals_and_at_least_one() {
        let arrivals = |seed| poisson(4.0, Duration::from_secs(10), seed);
        assert_eq!(arrivals(1), arrivals(1));
        assert_ne!(arrivals(1), arrivals(2));
        assert_eq!(poisson(1e-6, Duration::from_secs(1), 1), [Duration::from_secs(1)]);
    }
}
