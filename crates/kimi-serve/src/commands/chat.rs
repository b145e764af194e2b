//! `kimi-serve chat`: a conversation in the terminal, thinking dimmed.

use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use kimi_api::{ChatMessage, Role};
use kimi_chat::OutputEvent;
use rustyline::{DefaultEditor, error::ReadlineError};

use crate::{answer::answer, args::ChatArgs, load};

const HELP: &str =
    "/new starts over, /think switches thinking on and off, /quit or Ctrl-D leaves. Ctrl-C stops an answer.";

pub(crate) fn run(args: &ChatArgs) -> Result<()> {
    let terminal = load::for_terminal(&args.model, &args.engine)?;
    let mut options = args.answer.clone();
    let mut conversation = load::conversation(&options);
    let mut voice = Voice::new();
    let mut editor = DefaultEditor::new()?;
    voice.note(&format!("{} is ready. {HELP}", terminal.loaded.name))?;
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match line.trim() {
            "" => {}
            "/quit" | "/exit" => return Ok(()),
            "/help" => voice.note(HELP)?,
            "/new" => {
                conversation = load::conversation(&options);
                voice.note("a new conversation")?;
            }
            "/think" => {
                options.no_thinking = !options.no_thinking;
                conversation.thinking = !options.no_thinking;
                voice.note(if options.no_thinking { "thinking is off" } else { "thinking is on" })?;
            }
            text => {
                editor.add_history_entry(text)?;
                conversation.messages.push(ChatMessage::text(Role::User, text));
                let spoken = answer(&terminal.loaded, &conversation, &options, |event| voice.speak(event));
                match terminal.runtime.block_on(spoken) {
                    Ok(answered) => {
                        voice.end_answer()?;
                        if answered.finished.is_none() {
                            voice.note("stopped")?;
                        }
                        conversation.messages.push(ChatMessage::text(Role::Assistant, answered.content));
                    }
                    // The turn is lost, the conversation is not.
                    Err(error) => {
                        conversation.messages.pop();
                        voice.end_answer()?;
                        voice.note(&format!("error: {error:#}"))?;
                    }
                }
            }
        }
    }
}

/// Writes to the terminal, dim while thinking.
struct Voice {
    styled: bool,
    dim: bool,
}

impl Voice {
    fn new() -> Self {
        Self { styled: io::stdout().is_terminal(), dim: false }
    }

    fn speak(&mut self, event: &OutputEvent) -> io::Result<()> {
        match event {
            OutputEvent::Reasoning(text) => {
                self.set_dim(true)?;
                write(text)
            }
            OutputEvent::Content(text) => {
                if self.dim {
                    self.set_dim(false)?;
                    write("\n\n")?;
                }
                write(text)
            }
            _ => Ok(()),
        }
    }

    fn end_answer(&mut self) -> io::Result<()> {
        self.set_dim(false)?;
        write("\n\n")
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        self.set_dim(true)?;
        write(text)?;
        self.set_dim(false)?;
        write("\n")
    }

    fn set_dim(&mut self, dim: bool) -> io::Result<()> {
        if self.dim == dim {
            return Ok(());
        }
        self.dim = dim;
        if self.styled { write(if dim { "\x1b[2m" } else { "\x1b[0m" }) } else { Ok(()) }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
