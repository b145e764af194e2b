//! Prefixes: how much sooner the first token comes when the server has seen the prompt's beginning.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    bench::{Bench, BenchArgs},
    drive::{Driver, Outcome},
    load::{Conversation, Load, Turn},
    modes::Mode,
    progress::Progress,
    report::{Chart, Findings, Section},
    stats::Point,
    text::{stream, words},
};

const CHARTS: [Chart; 2] = [Chart::FirstToken, Chart::CacheHits];

/// Options of `kimi-bench prefix`.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct Prefix {
    /// Tokens of the prefix that two prompts share
    #[arg(long, default_value_t = 4096)]
    prompt_tokens: usize,
    /// Tokens in which they differ, at the end
    #[arg(long, default_value_t = 32)]
    ending_tokens: usize,
    /// Prefixes to try, each asked twice
    #[arg(long, default_value_t = 8)]
    requests: usize,
    /// The most tokens of each answer, reasoning included
    #[arg(long, visible_alias = "max-tokens", default_value_t = 16)]
    output_tokens: usize,
    /// Turns of each conversation, in which a turn's prompt is all that was said before; 0 for none
    #[arg(long, default_value_t = 6)]
    turns: usize,
    /// Conversations, one after the other
    #[arg(long, default_value_t = 4)]
    conversations: usize,
    /// Tokens that each turn of a conversation adds
    #[arg(long, default_value_t = 256)]
    turn_tokens: usize,
    #[command(flatten)]
    #[serde(flatten)]
    bench: BenchArgs,
}

impl Mode for Prefix {
    fn name(&self) -> &'static str {
        "prefix"
    }

    fn bench(&self) -> &BenchArgs {
        &self.bench
    }

    async fn run(&self, bench: &Bench) -> Result<Findings> {
        bench.warm_up(&Load::fixed(self.ending_tokens, self.output_tokens), 1).await?;
        let mut findings = Findings::default();
        self.pairs(bench, &mut findings).await?;
        if self.turns > 0 {
            self.converse(bench, &mut findings).await?;
        }
        Ok(findings)
    }
}

impl Prefix {
    /// Each prefix twice, with two endings.
    async fn pairs(&self, bench: &Bench, findings: &mut Findings) -> Result<()> {
        let driver = bench.driver();
        let progress = Progress::start(&driver.live, "prefixes", Some(2 * self.requests));
        let mut outcomes = [Outcome::default(), Outcome::default()];
        for index in bench.fresh(self.requests) {
            for (outcome, conversation) in outcomes.iter_mut().zip(self.pair(bench, index)) {
                ask(&driver, &conversation, outcome).await;
            }
        }
        drop(progress);
        let [cold, warm] = [("first time", 0), ("same prefix, other ending", 1)]
            .map(|(name, index)| Point::new(name, index as f64, &outcomes[index], bench.slo));
        findings.expect_misses([&cold].into_iter());
        let first_token = |point: &Point| point.ttft_ms.map(|ttft| ttft.p50);
        findings.ratio(
            "speed-up of the first token by a known prefix",
            first_token(&cold),
            first_token(&warm),
            "median TTFT of the first time / median TTFT of the second",
        );
        let title = format!("A prefix of {} tokens, asked twice", self.prompt_tokens);
        let (charts, points) = (CHARTS.to_vec(), vec![cold, warm]);
        findings.sections.push(Section { title, axis: "prompt".into(), numeric: false, charts, points });
        Ok(())
    }

    /// Two prompts with the same beginning.
    fn pair(&self, bench: &Bench, index: u64) -> [Conversation; 2] {
        let mut random = stream(bench.template.seed, index);
        let prefix = words(&mut random, bench.tokens.words_of_prompt(self.prompt_tokens));
        [0, 1].map(|_| {
            let ending = words(&mut random, bench.tokens.words(self.ending_tokens));
            let question = format!("{index}. {prefix} {ending}");
            let turn = Turn { question, max_tokens: self.output_tokens, reply: String::new() };
            Conversation { system: None, turns: vec![turn] }
        })
    }

    /// Conversations in which the server's own answers are sent back, as a chat client does.
    async fn converse(&self, bench: &Bench, findings: &mut Findings) -> Result<()> {
        let load = Load::fixed(self.turn_tokens, self.output_tokens).with_turns(self.turns);
        let driver = Driver { keep_answers: true, ..bench.driver() };
        let progress = Progress::start(&driver.live, "conversations", Some(self.conversations * self.turns));
        let mut turns: Vec<Outcome> = (0..self.turns).map(|_| Outcome::default()).collect();
        for conversation in bench.conversations(&load, self.conversations) {
            split(driver.converse(&conversation, Instant::now()).await, &mut turns);
        }
        drop(progress);
        let points = turns
            .iter()
            .zip(1_u32..)
            .map(|(outcome, turn)| Point::new(&format!("turn {turn}"), f64::from(turn), outcome, bench.slo));
        let title = format!("Conversations: each turn adds {} tokens", self.turn_tokens);
        let (charts, points) = (CHARTS.to_vec(), points.collect());
        findings.sections.push(Section { title, axis: "turn".into(), numeric: true, charts, points });
        Ok(())
    }
}

async fn ask(driver: &Driver, conversation: &Conversation, outcome: &mut Outcome) {
    let start = Instant::now();
    outcome.add(driver.converse(conversation, start).await);
    // Only the time in which such prompts were asked, or rates would count the other kind's time.
    outcome.elapsed += start.elapsed();
}

/// One conversation's answers, each to its turn.
fn split(conversation: Outcome, turns: &mut [Outcome]) {
    let answered = conversation.answers.len();
    for (answer, turn) in conversation.answers.into_iter().zip(turns.iter_mut()) {
        turn.elapsed += answer.end_to_end();
        turn.answers.push(answer);
    }
    let failed = conversation.errors.len();
    for (error, turn) in conversation.errors.into_iter().zip(turns[answered..].iter_mut()) {
        turn.errors.push(error);
    }
    turns[answered + failed..].iter_mut().for_each(|turn| turn.unfinished += 1);
}
