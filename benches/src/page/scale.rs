//! Axes: where values lie, and which of them are named.

/// Maps values to positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    from: f64,
    to: f64,
    log: bool,
    /// Positions of `from` and `to`.
    start: f64,
    end: f64,
}

impl Scale {
    pub(super) fn new((from, to): (f64, f64), log: bool, (start, end): (f64, f64)) -> Self {
        Self { from, to: if to > from { to } else { from + 1.0 }, log, start, end }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let place = |value: f64| if self.log { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let share = (place(value) - place(self.from)) / (place(self.to) - place(self.from));
        let position = self.start + share.clamp(0.0, 1.0) * (self.end - self.start);
        (position * 10.0).round() / 10.0
    }
}

/// Whether values spread so far that a linear scale would hide the small ones.
pub(super) fn spreads(values: impl Iterator<Item = f64> + Clone, factor: f64) -> bool {
    let (smallest, largest) = range(values);
    smallest > 0.0 && largest / smallest >= factor
}

/// The smallest and the largest value.
pub(super) fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// About five round values from 0 to `largest` or just above.
pub(super) fn linear_ticks(largest: f64) -> Vec<f64> {
    const STEPS: f64 = 5.0;
    if largest <= 0.0 {
        return vec![0.0, 1.0];
    }
    let decade = 10_f64.powf((largest / STEPS).log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * decade);
    let step = step.into_iter().find(|step| largest / step <= STEPS).unwrap_or(largest);
    let count = (largest / step).ceil() as u32;
    (0..=count).map(|index| f64::from(index) * step).collect()
}

/// 1, 2 and 5 times powers of ten, from just below `smallest` to just above `largest`.
pub(super) fn log_ticks(smallest: f64, largest: f64) -> Vec<f64> {
    let decades = smallest.log10().floor() as i32..=largest.log10().ceil() as i32;
    let all: Vec<f64> =
        decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|factor| factor * 10_f64.powi(decade))).collect();
    let first = all.iter().rposition(|&tick| tick <= smallest).unwrap_or(0);
    let last = all.iter().position(|&tick| tick >= largest).unwrap_or(all.len() - 1);
    // Over many decades only the powers of ten are named.
    let ticks = all[first..=last].iter().copied();
    if last - first <= 7 {
        ticks.collect()
    } else {
        ticks.filter(is_end_or_power(&all, first, last)).collect()
    }
}

fn is_end_or_power(all: &[f64], first: usize, last: usize) -> impl Fn(&f64) -> bool {
    let ends = [all[first], all[last]];
    move |tick| ends.contains(tick) || (tick.log10() - tick.log10().round()).abs() < 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_the_largest_value() {
        assert_eq!(linear_ticks(87.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(linear_ticks(1234.0), [0.0, 250.0, 500.0, 750.0, 1000.0, 1250.0]);
        assert_eq!(linear_ticks(0.4).len(), 5);
        assert_eq!(linear_ticks(0.0), [0.0, 1.0]);
        assert_eq!(log_ticks(3.0, 180.0), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0]);
        assert_eq!(log_ticks(1.5, 9e3), [1.0, 10.0, 100.0, 1000.0, 10_000.0]);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "positions are rounded")]
    fn scales_map_ends_to_ends_and_logarithms_to_equal_steps() {
        let linear = Scale::new((0.0, 10.0), false, (100.0, 0.0));
        assert_eq!([0.0, 5.0, 10.0].map(|value| linear.at(value)), [100.0, 50.0, 0.0]);
        let log = Scale::new((1.0, 100.0), true, (0.0, 200.0));
        assert_eq!([1.0, 10.0, 100.0].map(|value| log.at(value)), [0.0, 100.0, 200.0]);
        assert!(spreads([1.0, 9.0].into_iter(), 8.0) && !spreads([0.0, 9.0].into_iter(), 8.0));
    }
}
