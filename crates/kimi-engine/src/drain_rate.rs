//! How fast requests end, so that a client that is turned away can be told when to come back.

use std::time::{Duration, Instant};

/// What a refused client is told when nothing has ended yet.
const UNKNOWN: Duration = Duration::from_secs(2);
/// Nobody is told to come back sooner or later than this.
const RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// The share of the newest interval in the average: the last dozen or so count.
const NEWEST: f64 = 0.1;

/// The average time between two ends of requests while others wait. Idle times say nothing about how fast a queue drains,
/// so they are left out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DrainRate {
    last_end: Option<Instant>,
    seconds: Option<f64>,
}

impl DrainRate {
    /// Notes that a request ended now; `waiting` says whether another one waits for its place.
    pub(crate) fn ended(&mut self, now: Instant, waiting: bool) {
        if let Some(last) = self.last_end {
            let newest = (now - last).as_secs_f64();
            self.seconds = Some(self.seconds.map_or(newest, |average| average + NEWEST * (newest - average)));
        }
        self.last_end = waiting.then_some(now);
    }

    /// How long so many requests take to end, in whole seconds within reason.
    pub(crate) fn time_for(&self, requests: usize) -> Duration {
        let (least, most) = RANGE;
        let Some(seconds) = self.seconds else { return UNKNOWN };
        let time = Duration::try_from_secs_f64((seconds * requests as f64).ceil()).unwrap_or(most);
        time.clamp(least, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_the_ends_and_not_the_pauses() {
        let mut rate = DrainRate::default();
        assert_eq!(rate.time_for(9), UNKNOWN);
        let mut now = Instant::now();
        for end in 0..200 {
            now += Duration::from_millis(if end < 100 { 100 } else { 500 });
            rate.ended(now, end != 99);
            if end == 99 {
                assert_eq!(rate.time_for(32), Duration::from_secs(4), "3.2 s, rounded up");
                now += Duration::from_hours(1);
            }
        }
        assert_eq!(rate.time_for(30), Duration::from_secs(15));
        assert_eq!(rate.time_for(1_000_000), Duration::from_mins(1));
        assert_eq!(rate.time_for(0), Duration::from_secs(1));
    }
}
