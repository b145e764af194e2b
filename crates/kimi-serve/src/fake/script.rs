//! The file behind `serve --fake`: what is said to whom, how slowly, and how it breaks off. The format is in the README.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// A whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    /// Milliseconds until the first token, of turns that do not say.
    #[serde(default)]
    pub(super) first_token_ms: u64,
    /// Milliseconds between tokens, of turns that do not say.
    #[serde(default)]
    pub(super) token_ms: u64,
    pub(super) turns: Vec<Turn>,
}

/// One answer, and for whom it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    /// Only for requests whose last message contains this.
    #[serde(rename = "match")]
    pub(super) last_message: Option<String>,
    /// Only for requests whose prompt contains this anywhere, tool declarations included.
    pub(super) match_prompt: Option<String>,
    /// The whole output, special tokens spelled out.
    pub(super) text: Option<String>,
    /// The whole output as token ids.
    pub(super) tokens: Option<Vec<u32>>,
    /// Words from a hash of the prompt.
    #[serde(default)]
    pub(super) hash: bool,
    /// Left out when the request does not think.
    pub(super) reasoning: Option<String>,
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) tool_calls: Vec<Call>,
    /// Never ends: what follows the last special token is said again and again.
    #[serde(default)]
    pub(super) endless: bool,
    pub(super) first_token_ms: Option<u64>,
    pub(super) token_ms: Option<u64>,
    pub(super) fail: Option<Failure>,
}

/// A tool call in short form.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    pub(super) name: String,
    /// A text is sent as it is, so that it may be broken JSON.
    #[serde(default)]
    pub(super) arguments: Value,
    /// Without one, `functions.NAME:k` with the number of calls so far, as the model counts.
    pub(super) id: Option<String>,
}

/// How an answer breaks off.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Failure {
    /// Tokens that still come.
    pub(super) after: usize,
    pub(super) kind: FailureKind,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FailureKind {
    /// This request alone: the logits are not finite.
    NonFinite,
    /// The step fails, and with it the engine.
    Step,
    /// The engine thread panics.
    Panic,
}

impl Script {
    /// Reads a file's text: an object with `turns`, or just the list.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let script: Self = if text.trim_start().starts_with('[') {
            let turns = serde_json::from_str(text)?;
            Self { first_token_ms: 0, token_ms: 0, turns }
        } else {
            serde_json::from_str(text)?
        };
        ensure!(!script.turns.is_empty(), "it has no turns; at least one is needed");
        for (index, turn) in script.turns.iter().enumerate() {
            turn.check().with_context(|| format!("turn {index}"))?;
        }
        Ok(script)
    }

    /// The script of `--fake hash`.
    pub(super) fn hash() -> Self {
        Self { first_token_ms: 0, token_ms: 0, turns: vec![Turn { hash: true, ..Turn::default() }] }
    }
}

impl Turn {
    fn check(&self) -> Result<()> {
        let parts = self.reasoning.is_some() || self.content.is_some() || !self.tool_calls.is_empty();
        let ways = [self.text.is_some(), self.tokens.is_some(), self.hash, parts];
        ensure!(
            ways.iter().filter(|way| **way).count() == 1,
            "it must say exactly one of: text; tokens; hash; or reasoning, content and tool_calls"
        );
        Ok(())
    }

    /// Whether it is for some requests only.
    pub(super) fn is_picky(&self) -> bool {
        self.last_message.is_some() || self.match_prompt.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_readme_is_a_script() {
        let readme = include_str!("../../README.md");
        let example = readme.split("```json").nth(1).and_then(|rest| rest.split("```").next());
        let script = Script::parse(example.expect("an example")).expect("a script");
        assert_eq!((script.token_ms, script.turns.len()), (20, 4));
        assert_eq!(script.turns[0].tool_calls[0].name, "weather");
    }
}
