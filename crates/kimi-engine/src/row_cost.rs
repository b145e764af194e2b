//! What a row costs, measured: so that drafts are made where they pay, on whatever machine this is.

/// The share of the past in the sums: some hundred steps count.
const MEMORY: f64 = 0.99;
/// How many rows' worth of spread the assumption weighs that a row costs half a step.
const PRIOR_SPREAD: f64 = 4.0;
/// A step that took this many times as long as expected was held up by something else.
const HELD_UP: f64 = 2.0;

/// A straight line through the durations of the latest small steps over their numbers of rows.
///
/// Text does not depend on it: it only decides whether a draft is tried, and drafts do not change text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowCost {
    weight: f64,
    rows: f64,
    seconds: f64,
    rows_rows: f64,
    rows_seconds: f64,
}

impl RowCost {
    /// Notes that a step of so many rows took so long.
    pub(crate) fn observe(&mut self, rows: usize, seconds: f64) {
        let rows = rows as f64;
        let seconds = match self.line() {
            Some((base, slope)) => seconds.min(HELD_UP * (base + slope * rows)),
            None => seconds,
        };
        self.weight = MEMORY * self.weight + 1.0;
        self.rows = MEMORY * self.rows + rows;
        self.seconds = MEMORY * self.seconds + seconds;
        self.rows_rows = MEMORY * self.rows_rows + rows * rows;
        self.rows_seconds = MEMORY * self.rows_seconds + rows * seconds;
    }

    /// The share of a row in the time of a step of one row, from 0 to 1; `None` before the first step.
    pub(crate) fn share(&self) -> Option<f64> {
        let (base, slope) = self.line()?;
        Some(slope / (base + slope))
    }

    /// What a step of so many rows takes; `None` before the first step.
    pub(crate) fn seconds(&self, rows: usize) -> Option<f64> {
        self.line().map(|(base, slope)| base + slope * rows as f64)
    }

    /// Seconds of a step of no rows, and of each row. Neither is negative.
    fn line(&self) -> Option<(f64, f64)> {
        if self.weight == 0.0 || self.seconds <= 0.0 {
            return None;
        }
        let (mean_rows, mean_seconds) = (self.rows / self.weight, self.seconds / self.weight);
        let spread = self.rows_rows - self.rows * mean_rows;
        let together = self.rows_seconds - self.rows * mean_seconds;
        // Half of a step of one row, if its time lies on a line through the mean.
        let assumed = mean_seconds / (1.0 + mean_rows);
        let slope = (together + PRIOR_SPREAD * assumed) / (spread + PRIOR_SPREAD);
        let slope = slope.clamp(0.0, mean_seconds / mean_rows);
        Some((mean_seconds - slope * mean_rows, slope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of 1 to 9 rows on a machine where a row costs `share`, each as long as `noise` says times what it should.
    fn measured(share: f64, steps: usize, mut noise: impl FnMut(usize) -> f64) -> f64 {
        let mut cost = RowCost::default();
        for step in 0..steps {
            let rows = [1, 1, 4, 1, 9, 1, 2][step % 7];
            cost.observe(rows, 0.02 * (1.0 - share + share * rows as f64) * noise(step));
        }
        cost.share().unwrap_or(f64::NAN)
    }

    #[test]
    fn the_share_is_found() {
        assert!(RowCost::default().share().is_none());
        for share in [0.0, 0.1, 0.5, 1.0] {
            assert!((measured(share, 1, |_| 1.0) - 0.5).abs() < 1e-9, "one step says nothing");
            let found = measured(share, 200, |_| 1.0);
            assert!((found - share).abs() < 0.02, "{found} for {share}");
        }
    }

    #[test]
    fn single_slow_steps_do_not_count_for_much() {
        let disturbed = measured(0.2, 400, |step| if step % 50 == 3 { 100.0 } else { 1.0 });
        assert!((disturbed - 0.2).abs() < 0.1, "{disturbed}");
    }

    #[test]
    fn without_spread_the_assumption_holds() {
        let mut cost = RowCost::default();
        for _ in 0..1000 {
            cost.observe(1, 0.5);
        }
        assert!(cost.share().is_some_and(|share| (share - 0.5).abs() < 1e-6));
    }
}
