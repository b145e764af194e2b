//! `kimi-serve tokenize`: how a text or a conversation becomes tokens.

use std::io::{self, Write};

use anyhow::{Context, Result};
use kimi_api::ChatCompletionRequest;
use kimi_http::{Contract, MediaRules, Policy, conversation_of};

use super::text_or_stdin;
use crate::{args::TokenizeArgs, load};

pub(crate) fn run(args: TokenizeArgs) -> Result<()> {
    let text = text_or_stdin(args.text)?;
    let (_, files) = load::resolve(&args.model, |_, _, _| {})?;
    let vocabulary = load::vocabulary(&files)?;
    let tokens = if args.chat {
        let request: ChatCompletionRequest = serde_json::from_str(&text)
            .context("--chat expects a chat request as JSON, with `model` and `messages`")?;
        let conversation = conversation_of(request, Policy::of(Contract::Open), MediaRules::default())?;
        let markers = kimi_chat::Markers::resolve(&vocabulary)?;
        kimi_chat::encode(&conversation, &[], &vocabulary, &markers)?.tokens
    } else if args.special {
        vocabulary.encode_with_specials(&text)
    } else {
        vocabulary.encode_text(&text)
    };

    let mut stdout = io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", serde_json::to_string(&tokens)?)?;
        return Ok(());
    }
    for &token in &tokens {
        writeln!(stdout, "{token:>7}  {:?}", String::from_utf8_lossy(vocabulary.bytes(token)))?;
    }
    writeln!(stdout, "{} tokens", tokens.len())?;
    Ok(())
}
