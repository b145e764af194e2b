//! How much of a prompt may be computed beside answers, measured: so that a step that does both stays short.

use crate::row_cost::RowCost;

/// Prompts advance by this much whatever it costs: else one slow stream would hold up everybody who comes.
const LEAST: usize = 2;
/// Before anything was measured.
const FIRST: usize = 64;
/// A prompt's share grows by this factor a step at most: what a token costs depends on how many there are.
const GROWTH: usize = 2;
/// The share of the newest step in what a token costs.
const NEWEST: f64 = 0.3;

/// What steps cost, of answers and of prompts. Text does not depend on it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// Steps of answers alone.
    answers: RowCost,
    /// Seconds of a token of a prompt, on top of its sequence's first one.
    token: Option<f64>,
    /// Tokens of prompts in the last step that had some.
    last: usize,
}

impl Pace {
    /// Notes that a step of so many sequences, and so many tokens beyond one for each, took so long.
    pub(crate) fn observe(&mut self, sequences: usize, beyond: usize, seconds: f64) {
        if beyond == 0 {
            return self.answers.observe(sequences, seconds);
        }
        self.last = beyond;
        let newest = (seconds - self.answers.seconds(sequences).unwrap_or(0.0)).max(0.0) / beyond as f64;
        self.token = Some(self.token.map_or(newest, |token| token + NEWEST * (newest - token)));
    }

    /// Tokens beyond one for each sequence that the next step may compute beside `answers` answers, while so many `prompts`
    /// are to be computed. Prompts get as much time as answers; more if they are more, so that a few answers do not hold up
    /// a crowd.
    pub(crate) fn catch_up(&self, answers: usize, prompts: usize) -> usize {
        let Some((step, token)) = self.answers.seconds(answers).zip(self.token) else { return FIRST };
        let share = (prompts as f64 / answers.max(1) as f64).max(1.0);
        // A quotient beyond usize saturates.
        let affordable = (share * step / token).round() as usize;
        affordable.min(GROWTH * self.last).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of a step of answers, and of a token of a prompt beside them.
    const ANSWERS: f64 = 0.004;
    const TOKEN: f64 = 0.000_1;

    /// Steps of 4 answers, then a prompt that takes what it may; the tokens of each of its steps.
    fn shares(token: f64, steps: usize) -> Vec<usize> {
        let mut pace = Pace::default();
        (0..10).for_each(|_| pace.observe(4, 0, ANSWERS));
        let shares = (0..steps).map(|_| {
            let share = pace.catch_up(4, 1);
            pace.observe(4, share, ANSWERS + token * share as f64);
            share
        });
        shares.collect()
    }

    #[test]
    fn a_step_with_a_prompt_takes_twice_as_long() {
        assert_eq!(shares(TOKEN, 3), [FIRST, 40, 40]);
        assert_eq!(shares(TOKEN / 100.0, 8).last(), Some(&4000), "where tokens are cheap they are many");
        assert_eq!(shares(TOKEN * 100.0, 3), [FIRST, LEAST, LEAST], "prompts advance whatever it costs");
    }

    #[test]
    fn one_slow_step_is_soon_forgotten() {
        let mut pace = Pace::default();
        (0..100).for_each(|_| pace.observe(4, 0, ANSWERS));
        (0..10).for_each(|_| pace.observe(4, 40, ANSWERS + 40.0 * TOKEN));
        pace.observe(4, 40, 10.0 * ANSWERS);
        assert!(pace.catch_up(4, 1) < 40, "for now");
        (0..10)
            .for_each(|_| pace.observe(4, pace.catch_up(4, 1), ANSWERS + pace.catch_up(4, 1) as f64 * TOKEN));
        assert!((36..=40).contains(&pace.catch_up(4, 1)), "{}", pace.catch_up(4, 1));
    }

    #[test]
    fn free_tokens_do_not_break_it() {
        let mut pace = Pace::default();
        pace.observe(4, 0, ANSWERS);
        pace.observe(4, 512, 0.0);
        assert_eq!(pace.catch_up(4, 1), 1024);
    }

    #[test]
    fn a_crowd_of_prompts_gets_more_time_than_a_few_answers() {
        let mut pace = Pace::default();
        (0..10).for_each(|_| pace.observe(4, 0, ANSWERS));
        pace.observe(4, 512, ANSWERS + 512.0 * TOKEN);
        assert_eq!([1, 4, 8, 16].map(|prompts| pace.catch_up(4, prompts)), [40, 40, 80, 160]);
    }
}
