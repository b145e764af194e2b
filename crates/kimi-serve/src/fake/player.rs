//! Chooses a turn of the script for each request and writes it in the model's own tokens.

use std::sync::Arc;
use std::time::Duration;

use kimi_chat::{Markers, Vocabulary};
use kimi_engine::{FakeAnswer, FakeFailure, FakeFailureKind, FakeRunner, FakeTokens, NewSequence};
use kimi_tokens::TokenId;
use serde_json::Value;

use super::script::{Call, Failure, FailureKind, Script, Turn};

/// What is said when every turn is for other requests.
const NOTHING_MATCHES: &str = "No turn of the script is for this request.";

/// Words of a hashed answer's reasoning and content: at least this many, and less than twice as many.
const HASHED_WORDS: u64 = 16;

/// Plays a script. Lives on the engine thread.
pub(super) struct Player {
    script: Script,
    /// How often each turn was said.
    said: Vec<usize>,
    vocabulary: Arc<Vocabulary>,
    markers: Markers,
    /// Tokens that are text by themselves, for hashed answers.
    words: Vec<TokenId>,
}

impl Player {
    pub(super) fn new(script: Script, vocabulary: Arc<Vocabulary>, markers: Markers) -> Self {
        let is_word = |id: &TokenId| {
            !vocabulary.is_special(*id)
                && std::str::from_utf8(vocabulary.bytes(*id))
                    .is_ok_and(|text| !text.is_empty() && text.chars().all(|c| c == ' ' || c.is_alphabetic()))
        };
        let words = (0..vocabulary.len() as TokenId).filter(is_word).collect();
        let said = vec![0; script.turns.len()];
        Self { script, said, vocabulary, markers, words }
    }

    /// The answer to a request that was just introduced.
    pub(super) fn answer(&mut self, new: &NewSequence) -> FakeAnswer {
        let prompt = Prompt { tokens: &new.prompt, vocabulary: &self.vocabulary, markers: &self.markers };
        let Some(chosen) = self.choose(&prompt) else {
            tracing::warn!("{NOTHING_MATCHES}");
            let turn = Turn { content: Some(NOTHING_MATCHES.to_owned()), ..Turn::default() };
            return FakeAnswer::script(self.write(&turn, &prompt, 0));
        };
        let turn = &self.script.turns[chosen];
        // Without a temperature the answer is the same each time, as a model's would be.
        let seed = if new.sampling.temperature > 0.0 { new.sampling.seed } else { 0 };
        let tokens = self.write(turn, &prompt, FakeRunner::hash_prompt(seed, new));
        let repeat_from = if turn.endless { self.after_last_marker(&tokens) } else { tokens.len() };
        let milliseconds = |own: Option<u64>, default: u64| Duration::from_millis(own.unwrap_or(default));
        let answer = FakeAnswer {
            tokens: FakeTokens::Script { tokens, repeat_from },
            first_token_time: milliseconds(turn.first_token_ms, self.script.first_token_ms),
            token_time: milliseconds(turn.token_ms, self.script.token_ms),
            failure: turn.fail.map(failure),
        };
        self.said[chosen] += 1;
        answer
    }

    /// Of the turns that are for this request, the one said least often. Those that ask for something in it come before
    /// those for everybody.
    fn choose(&self, prompt: &Prompt<'_>) -> Option<usize> {
        let turns = || self.script.turns.iter().enumerate();
        let least_said =
            |candidates: &mut dyn Iterator<Item = usize>| candidates.min_by_key(|i| self.said[*i]);
        let mut picky = turns().filter(|(_, turn)| turn.is_picky() && prompt.suits(turn)).map(|(i, _)| i);
        let mut others = turns().filter(|(_, turn)| !turn.is_picky()).map(|(i, _)| i);
        least_said(&mut picky).or_else(|| least_said(&mut others))
    }

    fn write(&self, turn: &Turn, prompt: &Prompt<'_>, hash: u64) -> Vec<TokenId> {
        let mut tokens = match (&turn.text, &turn.tokens) {
            (Some(text), _) => self.vocabulary.encode_with_specials(text),
            (None, Some(tokens)) => tokens.clone(),
            (None, None) => self.write_parts(turn, prompt, hash),
        };
        if !turn.endless {
            tokens.push(self.markers.im_end);
        }
        tokens
    }

    /// Reasoning, content and calls, as the model would write them at this point of its prompt.
    fn write_parts(&self, turn: &Turn, prompt: &Prompt<'_>, hash: u64) -> Vec<TokenId> {
        let part = |text: &Option<String>, salt: u64| match text {
            Some(text) => self.vocabulary.encode_text(text),
            None if turn.hash => self.hashed_words(hash ^ salt),
            None => Vec::new(),
        };
        let mut out = Vec::new();
        if prompt.is_thinking() {
            out.extend(part(&turn.reasoning, 1));
            out.push(self.markers.end_think);
        }
        out.extend(part(&turn.content, 2));
        if !turn.tool_calls.is_empty() {
            let markers = &self.markers;
            let before = prompt.count(markers.tool_call_begin);
            out.push(markers.tool_calls_section_begin);
            for (index, call) in turn.tool_calls.iter().enumerate() {
                out.push(markers.tool_call_begin);
                out.extend(self.vocabulary.encode_text(&call_id(call, before + index)));
                out.push(markers.tool_call_argument_begin);
                out.extend(self.vocabulary.encode_text(&call_arguments(call)));
                out.push(markers.tool_call_end);
            }
            out.push(markers.tool_calls_section_end);
        }
        out
    }

    fn hashed_words(&self, state: u64) -> Vec<TokenId> {
        let draw = |index: u64, below: u64| FakeRunner::hash(state, &[index as TokenId]) % below.max(1);
        let count = HASHED_WORDS + draw(0, HASHED_WORDS);
        let word = |index| self.words.get(draw(index, self.words.len() as u64) as usize).copied();
        (1..=count).filter_map(word).collect()
    }

    fn after_last_marker(&self, tokens: &[TokenId]) -> usize {
        let last = tokens.iter().rposition(|id| self.vocabulary.is_special(*id));
        let start = last.map_or(0, |last| last + 1);
        // Nothing after it: the marker itself is repeated.
        start.min(tokens.len().saturating_sub(1))
    }
}

fn call_id(call: &Call, index: usize) -> String {
    call.id.clone().unwrap_or_else(|| format!("functions.{}:{index}", call.name))
}

fn call_arguments(call: &Call) -> String {
    match &call.arguments {
        Value::Null => "{}".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn failure(Failure { after, kind }: Failure) -> FakeFailure {
    let message = || "the script says so".to_owned();
    let kind = match kind {
        FailureKind::NonFinite => FakeFailureKind::NonFinite,
        FailureKind::Step => FakeFailureKind::Step(message()),
        FailureKind::Panic => FakeFailureKind::Panic(message()),
    };
    FakeFailure { after_tokens: after, kind }
}

/// What a script can ask of a request: the engine knows its tokens only.
struct Prompt<'a> {
    tokens: &'a [TokenId],
    vocabulary: &'a Vocabulary,
    markers: &'a Markers,
}

impl Prompt<'_> {
    fn suits(&self, turn: &Turn) -> bool {
        let said = |wanted: &Option<String>, tokens: &[TokenId]| {
            wanted.as_ref().is_none_or(|wanted| self.vocabulary.decode(tokens).contains(wanted.as_str()))
        };
        said(&turn.last_message, self.last_message()) && said(&turn.match_prompt, self.tokens)
    }

    /// The body of the last complete message; a prompt without messages, whole.
    fn last_message(&self) -> &[TokenId] {
        let Some(end) = self.tokens.iter().rposition(|id| *id == self.markers.im_end) else {
            return self.tokens;
        };
        let message = &self.tokens[..end];
        let body =
            message.iter().rposition(|id| *id == self.markers.im_middle).map_or(0, |middle| middle + 1);
        &message[body..]
    }

    /// Whether the answer begins with reasoning.
    fn is_thinking(&self) -> bool {
        let last = |marker| self.tokens.iter().rposition(|id| *id == marker);
        last(self.markers.think) > last(self.markers.end_think)
    }

    fn count(&self, marker: TokenId) -> usize {
        self.tokens.iter().filter(|id| **id == marker).count()
    }
}
