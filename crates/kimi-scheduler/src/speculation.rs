//! Speculation: tokens that somebody proposes are computed behind the last known one, all in one step, and kept as far as
//! sampling says the same. Text never depends on it; this decides only when it pays.

use std::fmt;

use kimi_tokens::TokenId;

use crate::prompt_lookup::PromptLookup;

/// When drafts are made at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speculation {
    /// Tokens of one sequence's draft at most.
    pub max_draft: usize,
    /// Rows of a step with drafts at most. Choose it so that a row's numbers do not depend on how many rows there are:
    /// then drafts do not change the last bit either.
    pub max_rows: usize,
    /// Try every proposal, whatever it costs. For tests.
    pub eager: bool,
}

/// Proposes what may come next. Kept for each sequence.
///
/// The seam for a draft model: its head runs beside the model, so its proposals come with the samples of the step before,
/// and its drafter only keeps them.
pub(crate) trait Drafter: Send + fmt::Debug {
    /// Hears the sequence's tokens, of which it may know the first ones.
    fn read(&mut self, tokens: &[TokenId]);

    /// What may follow `tokens`: up to `most` tokens, if anything.
    fn propose(&self, tokens: &[TokenId], most: usize) -> Option<Proposal>;
}

/// What may come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) tokens: Vec<TokenId>,
    /// How good the drafter thinks it is, from 0, the best, to below [`GRADES`]. What that is worth is learned.
    pub(crate) grade: usize,
}

/// The share of a row in a step of one row, before anything was measured.
pub(crate) const FIRST_ROW_COST: f64 = 0.5;

/// Grades of proposals.
const GRADES: usize = 3;
/// What is thought of the grades before anything was seen: how often a proposed token is the next one.
const FIRST_GUESS: [f64; GRADES] = [0.5, 0.4, 0.25];
/// The share of the newest observation in an estimate.
const NEWEST: f64 = 0.15;
/// A draft must promise this much more than it costs.
const MARGIN: f64 = 1.1;
/// What a sequence may lose of each of its steps, whatever happens. Less than the 2 % that speculation may cost at most, since
/// the price of a row is an estimate.
const ALLOWANCE: f64 = 0.015;
/// Gains beyond this many steps do not pay for later losses.
const SAVINGS: f64 = 2.0;

/// One sequence's proposals, what became of them, and what they may still cost.
///
/// Every proposal is compared with what is sampled, also when no row was spent on it, so that its worth is known before
/// anything is paid. The account is in steps: each accepted token saves one, each drafted token costs its row. It grows by
/// [`ALLOWANCE`] a step and never falls below 0, so at any time a sequence has lost at most that share of its steps, if
/// a row costs what the scheduler was told.
#[derive(Debug)]
pub(crate) struct Speculator {
    drafter: Box<dyn Drafter>,
    /// What may follow the last token.
    proposal: Option<Proposal>,
    /// How many of the proposed tokens the step computes, and what each costs.
    drafted: usize,
    cost: f64,
    /// How often a proposed token of each grade is the next one, if those before it were.
    acceptance: [f64; GRADES],
    account: f64,
}

impl Speculator {
    /// Looks up what comes next in what the sequence has.
    pub(crate) fn prompt_lookup() -> Self {
        Self {
            drafter: Box::new(PromptLookup::default()),
            proposal: None,
            drafted: 0,
            cost: 0.0,
            acceptance: FIRST_GUESS,
            account: 0.0,
        }
    }

    /// Hears the sequence's tokens before a step computes some of them.
    pub(crate) fn read(&mut self, tokens: &[TokenId]) {
        self.proposal = None;
        self.drafted = 0;
        self.drafter.read(tokens);
    }

    /// Proposes what follows `tokens` and returns what of it, `most` tokens at most, is worth rows that cost `cost` steps each.
    /// A draft ends before a stop token: nothing is sampled after one.
    pub(crate) fn draft(
        &mut self,
        tokens: &[TokenId],
        stop_tokens: &[TokenId],
        most: usize,
        cost: f64,
    ) -> &[TokenId] {
        // One more than is drafted, to be compared with the token that comes after an accepted draft.
        self.proposal = self.drafter.propose(tokens, most + 1);
        let Some(Proposal { tokens, grade }) = &self.proposal else { return &[] };
        let stop = tokens.iter().position(|token| stop_tokens.contains(token)).unwrap_or(tokens.len());
        let acceptance = self.acceptance[*grade];
        let pays = |count: usize| {
            acceptance.powi(count as i32) >= MARGIN * cost && count as f64 * cost <= self.account
        };
        self.drafted = (1..=most.min(stop)).take_while(|count| pays(*count)).count();
        self.cost = cost;
        &tokens[..self.drafted]
    }

    /// Learns from what was sampled after the tokens that were proposed for.
    pub(crate) fn judge(&mut self, sampled: &[TokenId]) {
        let drafted = std::mem::take(&mut self.drafted);
        let accepted = sampled.len().saturating_sub(1);
        let change = ALLOWANCE + accepted as f64 - drafted as f64 * self.cost;
        self.account = (self.account + change).min(SAVINGS);
        let Some(Proposal { tokens, grade }) = self.proposal.take() else { return };
        let estimate = &mut self.acceptance[grade];
        for (proposed, sampled) in tokens.iter().zip(sampled) {
            let right = proposed == sampled;
            *estimate += NEWEST * (f64::from(right) - *estimate);
            if !right {
                break;
            }
        }
    }
}

/// What one more row costs a step of `rows` rows, when a row makes up `share` of a step that has one: in steps, for each
/// token the step samples. A saved step is worth more to one sequence alone than to each of many.
pub(crate) fn cost_of_row(share: f64, rows: usize) -> f64 {
    let rows = rows as f64;
    rows * share / (1.0 - share + rows * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps that a text takes with speculation, where a row costs `share` of a step, and tokens it has.
    fn steps_for(text: &[TokenId], prompt: usize, share: f64) -> (f64, f64) {
        let mut speculator = Speculator::prompt_lookup();
        let (mut steps, mut end) = (0.0, prompt);
        while end < text.len() {
            speculator.read(&text[..end]);
            let draft = speculator
                .draft(&text[..end], &[], 8.min(text.len() - end - 1), cost_of_row(share, 1))
                .to_vec();
            let accepted = draft.iter().zip(&text[end..]).take_while(|(a, b)| a == b).count();
            steps += 1.0 + share * draft.len() as f64;
            speculator.judge(&text[end..=end + accepted]);
            end += accepted + 1;
        }
        (steps, (text.len() - prompt) as f64)
    }

    fn noise(count: usize, vocabulary: u32) -> Vec<TokenId> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % vocabulary
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn a_copy_pays_and_noise_costs_next_to_nothing() {
        let copy = noise(300, 1000).repeat(2);
        for (share, least) in [(0.05, 4.0), (0.2, 2.4), (0.5, 1.4)] {
            let (steps, tokens) = steps_for(&copy, 310, share);
            assert!(tokens / steps > least, "row {share}: {tokens} tokens in {steps} steps");
        }
        // Small vocabularies, where runs come back all the time and mean nothing.
        for vocabulary in [2, 3, 10, 1000] {
            for share in [0.05, 0.2, 0.5, 0.9, 1.0] {
                let (steps, tokens) = steps_for(&noise(600, vocabulary), 100, share);
                assert!(
                    steps <= (1.0 + ALLOWANCE) * tokens,
                    "{vocabulary} tokens, row {share}: {steps} steps for {tokens}"
                );
            }
        }
    }

    #[test]
    fn whatever_comes_the_loss_is_bounded() {
        // The worst text: it repeats itself until it is trusted and then breaks the promise, again and again.
        for trust in 1..30 {
            let mut text = noise(50, 1_000_000);
            for round in 0..60 {
                let start = text.len() - 20 - round % 7;
                for index in 0..trust {
                    text.push(text[start + index % 20]);
                }
                text.push(2_000_000 + round as u32);
            }
            for share in [0.1, 0.3, 0.6] {
                let (steps, tokens) = steps_for(&text, 50, share);
                assert!(steps <= tokens * (1.0 + ALLOWANCE), "{trust}, {share}: {steps} for {tokens}");
            }
        }
    }

    /// `cargo test --release -p kimi-scheduler --lib -- --ignored --nocapture bookkeeping_speed`
    #[test]
    #[ignore = "prints timings; run it alone"]
    fn bookkeeping_speed() {
        for (name, text) in [("random", noise(20_000, 2_000)), ("repeated", noise(2_000, 2_000).repeat(10))] {
            let best = (0..20).map(|_| {
                let start = std::time::Instant::now();
                let (_, tokens) = steps_for(&text, 100, 1.0); // no draft: every token is looked up and compared
                start.elapsed().as_secs_f64() / tokens * 1e9
            });
            println!("{name}: {:.0} ns a token", best.fold(f64::INFINITY, f64::min));
        }
    }

    #[test]
    fn a_row_costs_more_in_company() {
        assert!((cost_of_row(0.2, 1) - 0.2).abs() < 1e-9);
        assert!((cost_of_row(0.2, 4) - 0.5).abs() < 1e-9);
        assert!((cost_of_row(1.0, 3) - 1.0).abs() < 1e-9);
        assert!(cost_of_row(0.0, 16).abs() < 1e-9);
    }
}
