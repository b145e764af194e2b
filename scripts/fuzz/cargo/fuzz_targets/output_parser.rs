//! Any tokens a model might say. The first byte chooses what the request asked for, every two more are a token. Events
//! follow their grammar, and the same bytes cut into other tokens are the same answer.
#![no_main]

use std::sync::{Arc, LazyLock};

use kimi_chat::{
    OutputEvent, OutputParser, OutputStart, ParsedOutcome, ParserOptions, StopStrings, ToolSignature,
};
use kimi_fuzz::{VOCABULARY, markers};
use kimi_tokens::TokenId;
use libfuzzer_sys::fuzz_target;

static SPECIALS: LazyLock<Vec<TokenId>> =
    LazyLock::new(|| (0..VOCABULARY.len() as TokenId).filter(|&id| VOCABULARY.is_special(id)).collect());

/// The token of each single byte.
static BYTES: LazyLock<Vec<TokenId>> = LazyLock::new(|| {
    let id = |byte| (0..VOCABULARY.len() as TokenId).find(|&id| VOCABULARY.bytes(id) == [byte]);
    (0..=255).map(|byte| id(byte).expect("every byte is a token")).collect()
});

fuzz_target!(|data: &[u8]| {
    let [choice, rest @ ..] = data else { return };
    let tokens: Vec<TokenId> =
        rest.chunks_exact(2).map(|pair| token(u16::from_le_bytes([pair[0], pair[1]]))).collect();
    let cut: Vec<TokenId> = tokens.iter().flat_map(|&token| bytewise(token)).collect();

    let (events, outcome) = parse(&tokens, options(*choice));
    check_grammar(&events, outcome);
    let (same, same_outcome) = parse(&cut, options(*choice));
    assert_eq!(joined(events), joined(same), "{tokens:?}");
    let ends = |outcome: ParsedOutcome| {
        (outcome.tool_calls, outcome.malformed, outcome.unfinished_tool_call, outcome.stop_string_hit)
    };
    assert_eq!(ends(outcome), ends(same_outcome), "{tokens:?}");
});

/// Half of the numbers are special tokens; a few are no tokens at all.
fn token(number: u16) -> TokenId {
    let number = usize::from(number);
    if number % 2 == 0 {
        SPECIALS[number / 2 % SPECIALS.len()]
    } else {
        (number / 2 % (VOCABULARY.len() + 4)) as TokenId
    }
}

fn bytewise(token: TokenId) -> Vec<TokenId> {
    if token as usize >= VOCABULARY.len() || VOCABULARY.is_special(token) {
        return vec![token];
    }
    VOCABULARY.bytes(token).iter().map(|&byte| BYTES[usize::from(byte)]).collect()
}

fn options(choice: u8) -> ParserOptions {
    let tool =
        |name: &str, argument: &str| ToolSignature { name: name.into(), arguments: vec![argument.into()] };
    let tools = vec![tool("search", "query"), tool("get_weather", "city")];
    ParserOptions {
        start: if choice & 1 == 0 { OutputStart::Reasoning } else { OutputStart::Content },
        stop_strings: StopStrings::new((choice & 2 != 0).then(|| "the".to_owned())),
        first_tool_index: usize::from(choice >> 2 & 1),
        tools: tools.into_iter().take(usize::from(choice >> 3 & 3)).collect(),
    }
}

fn parse(tokens: &[TokenId], options: ParserOptions) -> (Vec<OutputEvent>, ParsedOutcome) {
    let mut parser = OutputParser::new(Arc::clone(&VOCABULARY), markers(), options);
    let mut events = Vec::new();
    for &token in tokens {
        parser.push(token, &mut events);
    }
    let outcome = parser.finish(&mut events);
    (events, outcome)
}

/// What a client may rely on.
fn check_grammar(events: &[OutputEvent], outcome: ParsedOutcome) {
    let (mut open, mut calls, mut finished, mut spoke) = (None, 0, 0, false);
    for event in events {
        match event {
            OutputEvent::Reasoning(text) => assert!(!spoke && !text.is_empty(), "reasoning comes first"),
            OutputEvent::Content(text) => {
                assert!(!text.is_empty() && open.is_none(), "no text inside of calls")
            }
            OutputEvent::ToolCallStarted { index, id, name } => {
                assert!(open.is_none() && *index == calls && !name.is_empty() && !id.is_empty());
                (open, calls) = (Some(*index), calls + 1);
            }
            OutputEvent::ToolArguments { index, .. } => assert_eq!(open, Some(*index)),
            OutputEvent::ToolCallFinished { index } => {
                assert_eq!(open.take(), Some(*index));
                finished += 1;
            }
            OutputEvent::StopStringHit { .. } => assert!(std::ptr::eq(event, &events[events.len() - 1])),
        }
        spoke |= !matches!(event, OutputEvent::Reasoning(_));
    }
    assert_eq!(outcome.tool_calls, finished);
    assert!(open.is_none() || outcome.unfinished_tool_call);
}

/// Events joined where one continues the other, as a client reads them.
fn joined(events: Vec<OutputEvent>) -> Vec<OutputEvent> {
    use OutputEvent::{Content, Reasoning, ToolArguments};
    let mut out: Vec<OutputEvent> = Vec::new();
    for event in events {
        match (out.last_mut(), event) {
            (Some(Reasoning(last)), Reasoning(more))
            | (Some(Content(last)), Content(more))
            | (Some(ToolArguments { json: last, .. }), ToolArguments { json: more, .. }) => {
                last.push_str(&more)
            }
            (_, event) => out.push(event),
        }
    }
    out
}
