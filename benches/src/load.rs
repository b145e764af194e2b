//! What is asked: conversations of known shapes, the same bytes for every server.

use clap::{Args, ValueEnum};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::{
    lengths::Lengths,
    options::positive,
    text::{Tokens, stream, words},
};

/// The random stream of the prefix that agents share; conversations count up from 0.
const SHARED_STREAM: u64 = u64::MAX - 1;

/// A kind of use. Lengths are in tokens; all but `fixed` are log-normal, given as mean and sigma.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// One turn of --prompt-tokens and --output-tokens, always the same
    Fixed,
    /// One turn: prompts 256 (sigma 1.0), answers 256 (sigma 0.7)
    Chat,
    /// Eight turns over a prefix of 8192 that all share: each turn adds 512 (sigma 1.0), answers 128 (sigma 0.7)
    Agentic,
    /// One turn: prompts 16384 (sigma 0.5), answers 256 (sigma 0.5)
    Long,
}

/// Which load, as options.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct LoadArgs {
    /// Lengths and turns of the conversations
    #[arg(long, value_enum, default_value_t = Shape::Fixed)]
    pub(crate) load: Shape,
    /// Multiplies all lengths of the load: a small server can be asked the same shape
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    pub(crate) scale: f64,
    /// Tokens of each prompt (load fixed)
    #[arg(long, default_value_t = 128)]
    pub(crate) prompt_tokens: usize,
    /// The most tokens of each answer, reasoning included (load fixed)
    #[arg(long, visible_alias = "max-tokens", default_value_t = 64)]
    pub(crate) output_tokens: usize,
}

/// A load with its parameters.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Tokens of the system message that all conversations share.
    shared: usize,
    pub(crate) turns: usize,
    /// What a turn adds to the prompt.
    prompt: Lengths,
    answer: Lengths,
}

/// What one client asks, turn after turn.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conversation {
    pub(crate) system: Option<String>,
    pub(crate) turns: Vec<Turn>,
}

/// One question and what the next turn's prompt says was answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Turn {
    pub(crate) question: String,
    pub(crate) max_tokens: usize,
    /// Written beforehand, so that every server gets the same prompts whatever it answers.
    pub(crate) reply: String,
}

impl LoadArgs {
    pub(crate) fn load(&self) -> Load {
        let log_normal = |mean, sigma| Lengths::LogNormal { mean, sigma }.scaled(self.scale);
        match self.load {
            Shape::Fixed => Load::fixed(self.prompt_tokens, self.output_tokens).scaled(self.scale),
            Shape::Chat => Load::single(log_normal(256.0, 1.0), log_normal(256.0, 0.7)),
            Shape::Agentic => Load {
                shared: (8192.0 * self.scale) as usize,
                turns: 8,
                prompt: log_normal(512.0, 1.0),
                answer: log_normal(128.0, 0.7),
            },
            Shape::Long => Load::single(log_normal(16_384.0, 0.5), log_normal(256.0, 0.5)),
        }
    }
}

impl Load {
    /// One turn of always the same lengths.
    pub(crate) fn fixed(prompt: usize, answer: usize) -> Self {
        Self::single(Lengths::Fixed(prompt as f64), Lengths::Fixed(answer as f64))
    }

    /// So many turns of the same lengths.
    pub(crate) fn with_turns(self, turns: usize) -> Self {
        Self { turns, ..self }
    }

    fn single(prompt: Lengths, answer: Lengths) -> Self {
        Self { shared: 0, turns: 1, prompt, answer }
    }

    fn scaled(self, factor: f64) -> Self {
        Self { prompt: self.prompt.scaled(factor), answer: self.answer.scaled(factor), ..self }
    }

    /// Whether requests are meant to find their beginning in a cache.
    pub(crate) fn shares_prefixes(&self) -> bool {
        self.shared > 0 || self.turns > 1
    }

    /// Conversation `index` of `seed`: always the same, and unlike any other from its first words on, but for
    /// what is shared on purpose.
    pub(crate) fn conversation(&self, tokens: Tokens, seed: u64, index: u64) -> Conversation {
        let mut random = stream(seed, index);
        let shared = tokens.words(self.shared);
        let system = (self.shared > 0).then(|| words(&mut stream(seed, SHARED_STREAM), shared));
        let turns = (0..self.turns).map(|turn| self.turn(tokens, &mut random, index, turn)).collect();
        Conversation { system, turns }
    }

    fn turn(&self, tokens: Tokens, random: &mut ChaCha8Rng, index: u64, turn: usize) -> Turn {
        let length = self.prompt.draw(random);
        let alone = turn == 0 && self.shared == 0;
        let count = if alone { tokens.words_of_prompt(length) } else { tokens.words(length) };
        let max_tokens = self.answer.draw(random);
        let question = format!("{index}. {}", words(random, count));
        Turn { question, max_tokens, reply: words(random, tokens.words(max_tokens)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(load: Shape, scale: f64) -> LoadArgs {
        LoadArgs { load, scale, prompt_tokens: 100, output_tokens: 30 }
    }

    fn mean(load: &Load, length: impl Fn(&Turn) -> usize) -> f64 {
        let turns: Vec<Turn> =
            (0..500).flat_map(|index| load.conversation(Tokens::UNKNOWN, 1, index).turns).collect();
        turns.iter().map(length).sum::<usize>() as f64 / turns.len() as f64
    }

    #[test]
    fn loads_have_the_documented_lengths() {
        // Three standard errors of 500 draws with sigma 1.0 are 18 % of the mean.
        for (shape, prompt, answer) in [
            (Shape::Fixed, 100.0, 30.0),
            (Shape::Chat, 256.0, 256.0),
            (Shape::Agentic, 512.0, 128.0),
            (Shape::Long, 16_384.0, 256.0),
        ] {
            let load = args(shape, 0.5).load();
            let found = mean(&load, |turn| turn.question.split(' ').count() - 1);
            assert!((found / (prompt / 2.0) - 1.0).abs() < 0.18, "{shape:?}: prompts {found}");
            let found = mean(&load, |turn| turn.max_tokens);
            assert!((found / (answer / 2.0) - 1.0).abs() < 0.18, "{shape:?}: answers {found}");
        }
    }

    #[test]
    fn agents_share_their_beginning_and_nothing_else() {
        let load = args(Shape::Agentic, 0.25).load();
        let [one, two] = [0, 1].map(|index| load.conversation(Tokens::UNKNOWN, 1, index));
        assert_eq!(one, load.conversation(Tokens::UNKNOWN, 1, 0));
        assert_eq!(one.system, two.system);
        assert_eq!(one.system.unwrap().split(' ').count(), 2048);
        assert_eq!((one.turns.len(), two.turns.len()), (8, 8));
        assert_ne!(one.turns[0].question[..4], two.turns[0].question[..4]);
        assert!(load.shares_prefixes() && !args(Shape::Chat, 1.0).load().shares_prefixes());
    }
}
