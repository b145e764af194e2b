//! Plain-text answers: events become pieces of choices; a stream sends the pieces, a whole answer is their sum.

use kimi_api::{Completion, CompletionChoice, CompletionLogprobs, TokenLogprob, Usage};
use serde_json::Value;

use crate::ApiError;
use crate::choices::{ChoiceEvent, Choices};
use crate::generation::AnswerEvent;
use crate::sse::{Framing, write_data, write_done};

/// What every chunk of an answer repeats, and how far each choice is.
pub(crate) struct CompletionWriter {
    /// `cmpl-…`.
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// The model's name as the request spelled it.
    pub(crate) model: String,
    /// A last chunk carries the usage, and all others say `"usage": null`.
    pub(crate) include_usage: bool,
    /// What each choice begins with before the model says anything, by prompt; empty when none begins with anything.
    pub(crate) echoes: Vec<Echo>,
    /// Choices of each prompt.
    pub(crate) per_prompt: usize,
    /// How far each choice is; made when the answer begins.
    pub(crate) offsets: Vec<Offsets>,
}

/// A prompt that its answers begin with.
pub(crate) struct Echo {
    pub(crate) text: String,
    /// Its first token, when log probabilities are reported: nothing says how likely that was.
    pub(crate) first_token: Option<String>,
}

/// Characters of a choice.
#[derive(Clone, Copy, Default)]
pub(crate) struct Offsets {
    /// Of its text so far.
    text: usize,
    /// Of the tokens of its prompt that were reported.
    prompt: usize,
}

impl CompletionWriter {
    /// What the choices begin with: the prompt's text and ids, as far as they were asked for.
    fn first_pieces(&mut self, choices: &Choices) -> Vec<CompletionChoice> {
        self.offsets = vec![Offsets::default(); choices.len()];
        let pieces = (0..choices.len()).map(|index| {
            let prompt = index / self.per_prompt;
            let prompt_token_ids = choices.prompt_token_ids(prompt).map(<[_]>::to_vec);
            let piece = CompletionChoice { index, prompt_token_ids, ..CompletionChoice::default() };
            let Some(Echo { text, first_token }) = self.echoes.get(prompt) else { return piece };
            let logprobs = first_token.clone().map(of_first_token);
            let characters = |text: &String| text.chars().count();
            let prompt = first_token.as_ref().map_or(0, characters);
            self.offsets[index] = Offsets { text: characters(text), prompt };
            CompletionChoice { text: text.clone(), logprobs, ..piece }
        });
        pieces.collect()
    }

    /// What an event adds to its choice.
    fn piece(&mut self, ChoiceEvent { index, event, token_ids }: ChoiceEvent) -> CompletionChoice {
        let piece = CompletionChoice { index, token_ids, ..CompletionChoice::default() };
        let offsets = &mut self.offsets[index];
        match event {
            AnswerEvent::Prompt(tokens) => {
                let logprobs = Some(in_arrays(tokens, &mut offsets.prompt));
                CompletionChoice { logprobs, ..piece }
            }
            AnswerEvent::Content { text, logprobs } => {
                let logprobs = logprobs.map(|tokens| in_arrays(tokens, &mut offsets.text.clone()));
                offsets.text += text.chars().count();
                CompletionChoice { text, logprobs, ..piece }
            }
            AnswerEvent::Finished { reason, .. } => CompletionChoice { finish_reason: Some(reason), ..piece },
            // A raw prompt's answer is read as plain text.
            AnswerEvent::Reasoning(_)
            | AnswerEvent::ToolCallStarted { .. }
            | AnswerEvent::ToolArguments { .. } => piece,
        }
    }

    /// The usage is left out, null included, where `with_usage` is false.
    fn completion(
        &self,
        choices: Vec<CompletionChoice>,
        with_usage: bool,
        usage: Option<Usage>,
    ) -> Completion<'_> {
        let Self { id, created, model, .. } = self;
        let usage = with_usage.then_some(usage);
        Completion { id, object: Completion::OBJECT, created: *created, model, choices, usage }
    }

    fn write(&self, choices: Vec<CompletionChoice>, usage: Option<Usage>, out: &mut Vec<u8>) {
        write_data(&self.completion(choices, self.include_usage, usage), out);
    }
}

impl Framing for CompletionWriter {
    type Whole = Value;

    async fn collect(mut self, mut choices: Choices) -> Result<Value, ApiError> {
        let mut sums = self.first_pieces(&choices);
        while let Some(event) = choices.next().await {
            let piece = self.piece(event?);
            add(&mut sums[piece.index], piece);
        }
        let whole = self.completion(sums, true, Some(choices.usage()));
        serde_json::to_value(whole).map_err(|_| choices.broken_off())
    }

    fn begin(&mut self, choices: &Choices, out: &mut Vec<u8>) {
        for piece in self.first_pieces(choices) {
            if !piece.text.is_empty() || piece.prompt_token_ids.is_some() {
                self.write(vec![piece], None, out);
            }
        }
    }

    fn event(&mut self, event: ChoiceEvent, out: &mut Vec<u8>) {
        let piece = self.piece(event);
        self.write(vec![piece], None, out);
    }

    fn end(&mut self, usage: Usage, out: &mut Vec<u8>) {
        if self.include_usage {
            self.write(Vec::new(), Some(usage), out);
        }
        write_done(out);
    }
}

fn add(sum: &mut CompletionChoice, piece: CompletionChoice) {
    sum.text.push_str(&piece.text);
    sum.finish_reason = sum.finish_reason.or(piece.finish_reason);
    if let Some(ids) = piece.token_ids {
        sum.token_ids.get_or_insert_default().extend(ids);
    }
    if let Some(more) = piece.logprobs {
        let logprobs = sum.logprobs.get_or_insert_default();
        logprobs.tokens.extend(more.tokens);
        logprobs.token_logprobs.extend(more.token_logprobs);
        logprobs.top_logprobs.extend(more.top_logprobs);
        logprobs.text_offset.extend(more.text_offset);
    }
}

/// Nothing says how likely a prompt's first token was.
fn of_first_token(token: String) -> CompletionLogprobs {
    CompletionLogprobs {
        tokens: vec![token],
        token_logprobs: vec![None],
        top_logprobs: vec![None],
        text_offset: vec![0],
    }
}

/// The older shape of log probabilities. `offset` is where the first token begins, in characters, and then where the last one ends.
fn in_arrays(tokens: Vec<TokenLogprob>, offset: &mut usize) -> CompletionLogprobs {
    let mut arrays = CompletionLogprobs::default();
    for token in tokens {
        let mut top: indexmap::IndexMap<String, f32> = indexmap::IndexMap::new();
        // Of tokens with the same text, the likelier comes first. The one that was drawn is always there.
        let alternatives = token.top_logprobs.into_iter().map(|top| (top.token, top.logprob));
        for (text, logprob) in alternatives.chain([(token.token.clone(), token.logprob)]) {
            top.entry(text).or_insert(logprob);
        }
        arrays.tokens.push(token.token);
        arrays.token_logprobs.push(Some(token.logprob));
        arrays.top_logprobs.push(Some(top));
        arrays.text_offset.push(*offset);
        // A character may be spread over tokens: it counts where it begins.
        *offset += token.bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
    }
    arrays
}
