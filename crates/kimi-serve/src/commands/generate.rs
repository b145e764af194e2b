//! `kimi-serve generate`: one prompt, the answer on standard output.

use std::io::{self, Write};

use anyhow::{Result, ensure};
use kimi_api::{ChatMessage, Role};
use kimi_chat::OutputEvent;

use super::text_or_stdin;
use crate::{answer::answer, args::GenerateArgs, load};

pub(crate) fn run(args: GenerateArgs) -> Result<()> {
    let prompt = text_or_stdin(args.prompt)?;
    ensure!(!prompt.trim().is_empty(), "the prompt is empty; pass it as an argument or on standard input");
    let terminal = load::for_terminal(&args.model, &args.engine)?;
    let mut conversation = load::conversation(&args.answer);
    conversation.messages.push(ChatMessage::text(Role::User, prompt));

    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    let answered = terminal.runtime.block_on(answer(
        &terminal.loaded,
        &conversation,
        &args.answer,
        |event| match event {
            OutputEvent::Reasoning(text) if args.show_thinking => {
                stderr.write_all(text.as_bytes())?;
                stderr.flush()
            }
            OutputEvent::Content(text) => {
                stdout.write_all(text.as_bytes())?;
                stdout.flush()
            }
            _ => Ok(()),
        },
    ))?;
    writeln!(stdout)?;
    ensure!(
        !answered.content.is_empty(),
        "the model spent all of --max-tokens {} on thinking; raise it or pass --no-thinking",
        args.answer.max_tokens
    );
    Ok(())
}
