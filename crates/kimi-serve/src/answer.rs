//! One answer for the terminal commands: the same hops as over HTTP, without the wire.

use std::io;

use anyhow::{Context, Result, bail};
use kimi_chat::{Conversation, OutputEvent, OutputParser, ParserOptions, StopStrings};
use kimi_engine::{Constraint, Finished, GenerateRequest, Sampling, TokenEvent};

use crate::{args::AnswerArgs, load::Loaded};

/// What was said, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The answer itself.
    pub(crate) content: String,
    /// The thinking before it.
    pub(crate) reasoning: String,
    /// Counts, unless the user interrupted.
    pub(crate) finished: Option<Finished>,
}

/// Generates one answer and hands each piece to `speak` as it comes. Ctrl-C ends the answer, not the program.
pub(crate) async fn answer(
    loaded: &Loaded,
    conversation: &Conversation,
    args: &AnswerArgs,
    mut speak: impl FnMut(&OutputEvent) -> io::Result<()>,
) -> Result<Answer> {
    let prompt = kimi_chat::encode(conversation, &[], &loaded.vocabulary, &loaded.markers)?;
    let options = ParserOptions::for_conversation(conversation, StopStrings::default());
    let mut parser = OutputParser::new(loaded.vocabulary.clone(), loaded.markers, options);
    let room = loaded.engine.limits().max_context.saturating_sub(prompt.tokens.len());
    let mut stream = loaded.engine.generate(GenerateRequest {
        prompt,
        sampling: sampling(args),
        max_tokens: args.max_tokens.clamp(1, room.max(1)),
        stop_tokens: loaded.markers.stop_tokens().to_vec(),
        logprobs: None,
        prompt_logprobs: None,
        constraint: Constraint::default(),
        cache_scope: None,
        standing: kimi_engine::Standing::default(),
    })?;

    let mut answer = Answer::default();
    let mut events = Vec::new();
    loop {
        let event = tokio::select! {
            event = stream.next() => event.context("the engine ended without an answer")?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                break;
            }
        };
        match event {
            // Not asked for.
            TokenEvent::Prompt(_) => {}
            TokenEvent::Token(token) => {
                parser.push(token.id, &mut events);
            }
            TokenEvent::Finished(finished) => {
                answer.finished = Some(finished);
                break;
            }
            TokenEvent::Failed(failure) => bail!(failure),
        }
        answer.speak(&mut events, &mut speak)?;
    }
    parser.finish(&mut events);
    answer.speak(&mut events, &mut speak)?;
    Ok(answer)
}

impl Answer {
    fn speak(
        &mut self,
        events: &mut Vec<OutputEvent>,
        speak: &mut impl FnMut(&OutputEvent) -> io::Result<()>,
    ) -> io::Result<()> {
        for event in events.drain(..) {
            speak(&event)?;
            match event {
                OutputEvent::Reasoning(text) => self.reasoning += &text,
                OutputEvent::Content(text) => self.content += &text,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The hosted defaults: temperature 1.0 with thinking, 0.6 without, top-p 0.95.
fn sampling(args: &AnswerArgs) -> Sampling {
    Sampling {
        temperature: args.temperature.unwrap_or(if args.no_thinking { 0.6 } else { 1.0 }),
        top_p: args.top_p,
        seed: args.seed.unwrap_or_else(rand::random),
        ..Sampling::greedy()
    }
}
