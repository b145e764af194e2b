//! The output parser: every form of output, every split, any tokens at all.

use kimi_chat::{
    OutputEvent, OutputParser, OutputStart, ParsedOutcome, ParserOptions, StopStrings, TokenRole,
    ToolSignature,
};
use proptest::prelude::*;

use crate::support::{bytes_only, real};

const SECTION: &str = "<|tool_calls_section_begin|>";
const END_SECTION: &str = "<|tool_calls_section_end|>";
const CALL: &str = "<|tool_call_begin|>";
const ARGUMENTS: &str = "<|tool_call_argument_begin|>";
const END_CALL: &str = "<|tool_call_end|>";
const END: &str = "<|im_end|>";

fn tool(name: &str, arguments: &[&str]) -> ToolSignature {
    ToolSignature {
        name: name.to_owned(),
        arguments: arguments.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn options(start: OutputStart) -> ParserOptions {
    ParserOptions {
        start,
        stop_strings: StopStrings::default(),
        first_tool_index: 0,
        tools: vec![tool("search", &["query", "limit"]), tool("get_weather", &["city", "unit"])],
    }
}

/// Parses the bytes of `text` one token each, markers as tokens; events joined.
fn parse(text: &str, options: ParserOptions) -> (Vec<OutputEvent>, ParsedOutcome) {
    let (vocabulary, markers) = bytes_only();
    let mut parser = OutputParser::new(vocabulary.clone(), *markers, options);
    let mut events = Vec::new();
    for token in vocabulary.encode_with_specials(text) {
        parser.push(token, &mut events);
    }
    let outcome = parser.finish(&mut events);
    (events, outcome)
}

/// Events in short: `R(…)` reasoning, `C(…)` content, `+0(id name)` a call, `A0(…)` its arguments, `-0` its end, `STOP`.
fn short(events: &[OutputEvent]) -> String {
    let event = |event: &OutputEvent| match event {
        OutputEvent::Reasoning(text) => format!("R({text})"),
        OutputEvent::Content(text) => format!("C({text})"),
        OutputEvent::ToolCallStarted { index, id, name } => format!("+{index}({id} {name})"),
        OutputEvent::ToolArguments { index, json } => format!("A{index}({json})"),
        OutputEvent::ToolCallFinished { index } => format!("-{index}"),
        OutputEvent::StopStringHit { .. } => "STOP".to_owned(),
    };
    events.iter().map(event).collect::<Vec<_>>().join(" ")
}

/// Output, events in short, complete calls, malformed places.
type Case<'a> = (String, &'a str, usize, usize);

fn check(start: OutputStart, cases: &[Case<'_>]) {
    for (text, expected, tool_calls, malformed) in cases {
        let (events, outcome) = parse(text, options(start));
        assert_eq!(short(&events), *expected, "{text}");
        assert_eq!((outcome.tool_calls, outcome.malformed), (*tool_calls, *malformed), "{text}");
    }
}

fn call(id: &str, json: &str) -> String {
    format!("{CALL}{id}{ARGUMENTS}{json}{END_CALL}")
}

#[test]
fn separates_reasoning_from_content() {
    check(
        OutputStart::Reasoning,
        &[
            (format!("hm</think>yes{END}"), "R(hm) C(yes)", 0, 0),
            (format!("<think>hm</think>yes{END}"), "R(hm) C(yes)", 0, 0),
            (format!("</think>yes{END}"), "C(yes)", 0, 0),
            ("never ends".to_owned(), "R(never ends)", 0, 0),
            (format!("hm{END}</think>ignored"), "R(hm)", 0, 0),
            ("a[EOS]b".to_owned(), "R(a)", 0, 0),
            (format!("hm</think>a</think>b<think>c{END}"), "R(hm) C(abc)", 0, 2),
            (format!("a<|im_user|>b<|media_pad|>c<|reserved_token_261|>{END}"), "R(abc)", 0, 3),
        ],
    );
    check(
        OutputStart::Content,
        &[
            (format!("yes{END}"), "C(yes)", 0, 0),
            (format!("<think>yes{END}"), "C(yes)", 0, 0),
            ("half 語 日本".to_owned(), "C(half 語 日本)", 0, 0),
            (String::new(), "", 0, 0),
        ],
    );
}

#[test]
fn letters_that_spell_a_marker_are_text() {
    let (vocabulary, markers) = bytes_only();
    let mut parser = OutputParser::new(vocabulary.clone(), *markers, options(OutputStart::Reasoning));
    let mut events = Vec::new();
    for token in vocabulary.encode_text("</think><|tool_call_begin|>") {
        assert_eq!(parser.push(token, &mut events), TokenRole::Reasoning);
    }
    assert_eq!(short(&events), "R(</think><|tool_call_begin|>)");
}

#[test]
fn reads_tool_calls() {
    let weather = call("functions.get_weather:0", r#"{"city": "Tokyo"}"#);
    let search = call("functions.search:1", "{}");
    check(
        OutputStart::Reasoning,
        &[
            (
                format!("hm</think>Let me see.{SECTION}{weather}{search}{END_SECTION}{END}"),
                r#"R(hm) C(Let me see.) +0(functions.get_weather:0 get_weather) A0({"city": "Tokyo"}) -0 +1(functions.search:1 search) A1({}) -1"#,
                2,
                0,
            ),
            // The model forgets to close its reasoning.
            (
                format!("hm{SECTION}{search}{END_SECTION}done{END}"),
                "R(hm) +0(functions.search:1 search) A0({}) -0 C(done)",
                1,
                0,
            ),
            // White space around everything.
            (
                format!(
                    "{SECTION}\n {CALL} functions.search:1\n{ARGUMENTS}\n {{ \"a\" : 1 }} \n{END_CALL}\n{END_SECTION}{END}"
                ),
                "+0(functions.search:1 search) A0({ \"a\" : 1 }) -0",
                1,
                0,
            ),
            // No section around the calls.
            (
                format!("hm{weather}\n{search}\n{END}"),
                r#"R(hm) +0(functions.get_weather:0 get_weather) A0({"city": "Tokyo"}) -0 +1(functions.search:1 search) A1({}) -1"#,
                2,
                0,
            ),
            (
                format!("hm{search}\nSo much.{END}"),
                "R(hm) +0(functions.search:1 search) A0({}) -0 C(So much.)",
                1,
                0,
            ),
        ],
    );
}

#[test]
fn makes_ids_native() {
    let mut options = options(OutputStart::Content);
    options.first_tool_index = 5;
    let ids =
        ["functions.search:5", "search:9", "search", "functions.search:5", "functions.unknown.tool-x:7"];
    let calls: String = ids.iter().map(|id| call(id, "{}")).collect();
    let (events, outcome) = parse(&format!("{SECTION}{calls}{END_SECTION}"), options);
    let ids: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            OutputEvent::ToolCallStarted { id, .. } => Some(id.as_str()),
            _ => None,
        })
        .collect();
    // As written; with its prefix; made up; made up because it was taken; a tool nobody declared is the client's business.
    let expected = [
        "functions.search:5",
        "functions.search:9",
        "functions.search:7",
        "functions.search:8",
        "functions.unknown.tool-x:7",
    ];
    assert_eq!(ids, expected);
    assert_eq!((outcome.tool_calls, outcome.malformed), (5, 0));
}

#[test]
fn names_calls_that_came_with_a_bare_number() {
    let by_keys = call("3", r#"{"city": "Rome", "when": 1}"#);
    let empty = call(":4", "{}");
    let hopeless = call("3", r#"{"when": 1}"#);
    check(
        OutputStart::Content,
        &[
            (
                format!("{SECTION}{by_keys}{END_SECTION}"),
                r#"+0(functions.get_weather:0 get_weather) A0({"city": "Rome", "when": 1}) -0"#,
                1,
                0,
            ),
            (format!("{SECTION}{empty}{END_SECTION}"), "+0(functions.search:0 search) A0({}) -0", 1, 0),
            (format!("{SECTION}{hopeless}{END_SECTION}"), r#"C(3{"when": 1})"#, 0, 1),
            (
                format!("{SECTION}{}{END_SECTION}", call("let's see", r#"{"query": "x"}"#)),
                r#"+0(functions.search:0 search) A0({"query": "x"}) -0"#,
                1,
                1,
            ),
        ],
    );
    // With one tool there is nothing to guess, and nothing to wait for.
    let only = ParserOptions { tools: vec![tool("f", &[])], ..options(OutputStart::Content) };
    let (events, outcome) = parse(&format!("{SECTION}{CALL}12{ARGUMENTS}{{\"a\":"), only);
    assert_eq!(short(&events), "+0(functions.f:0 f) A0({\"a\":)");
    assert!(outcome.unfinished_tool_call);
}

#[test]
fn broken_calls_degrade() {
    let search = call("functions.search:0", "{}");
    let good = "+0(functions.search:0 search) A0({}) -0";
    check(
        OutputStart::Content,
        &[
            // A call that begins again.
            (format!("{SECTION}{CALL}functions.sea{search}{END_SECTION}"), good, 1, 1),
            // Arguments that never begin, beside a good call and alone.
            (format!("{SECTION}{CALL}functions.x:0{END_CALL}{search}{END_SECTION}"), good, 1, 1),
            (format!("{SECTION}{CALL}functions.x:0{END_CALL}{END_SECTION} ok"), "C(functions.x:0 ok)", 0, 1),
            (format!("{SECTION}{CALL}functions.x:0{END_SECTION}"), "C(functions.x:0)", 0, 1),
            (format!("{SECTION}{CALL}functions.x:0{END}"), "C(functions.x:0)", 0, 1),
            // Talk where a call should be.
            (format!("{SECTION}I cannot.{END_SECTION}{END}"), "C(I cannot.)", 0, 1),
            (format!("{SECTION}I cannot.{END}"), "C(I cannot.)", 0, 1),
            (format!("{SECTION}so {search}{END_SECTION}"), good, 1, 1),
            // A call that forgets to begin.
            (format!("{SECTION}functions.search:0{ARGUMENTS}{{}}{END_CALL}{END_SECTION}"), good, 1, 1),
            // Calls that forget to end.
            (format!("{SECTION}{CALL}functions.search:0{ARGUMENTS}{{}}{END_SECTION}"), good, 1, 1),
            (format!("{SECTION}{CALL}functions.search:0{ARGUMENTS}{{}}{END}"), good, 1, 1),
            (
                format!(
                    "{SECTION}{CALL}functions.search:0{ARGUMENTS}{{}}{}{END_SECTION}",
                    call("get_weather:1", "{}")
                ),
                "+0(functions.search:0 search) A0({}) -0 +1(functions.get_weather:1 get_weather) A1({}) -1",
                2,
                1,
            ),
            // Arguments that are no JSON are the client's to judge; none at all are an empty object.
            (
                format!("{SECTION}{}{END_SECTION}", call("functions.search:0", "{\"query\": ")),
                "+0(functions.search:0 search) A0({\"query\":) -0",
                1,
                1,
            ),
            (format!("{SECTION}{}{END_SECTION}", call("functions.search:0", " ")), good, 1, 1),
            // Markers in the wrong place.
            (format!("a{END_SECTION}b{END_CALL}c{ARGUMENTS}d{END}"), "C(abcd)", 0, 3),
            (format!("{SECTION}{SECTION}{search}</think>{END_SECTION}"), good, 1, 2),
        ],
    );
}

#[test]
fn a_cut_output_delivers_what_is_certain() {
    let cut = [
        (format!("hm{SECTION}{CALL}functions.sea"), "R(hm)"),
        (format!("{SECTION}{CALL}functions.search:0{ARGUMENTS}"), "+0(functions.search:0 search)"),
        (
            format!("{SECTION}{CALL}functions.search:0{ARGUMENTS}{{\"query\": \"a "),
            "+0(functions.search:0 search) A0({\"query\": \"a)",
        ),
    ];
    for (text, expected) in cut {
        let (events, outcome) = parse(&text, options(OutputStart::Reasoning));
        assert_eq!(short(&events), expected);
        assert_eq!(
            (outcome.tool_calls, outcome.unfinished_tool_call, outcome.malformed),
            (0, true, 0),
            "{text}"
        );
    }
    let (events, _) = parse("caf", options(OutputStart::Content));
    assert_eq!(short(&events), "C(caf)");
}

#[test]
fn stop_strings_end_the_content_only() {
    let with_stop =
        |start| ParserOptions { stop_strings: StopStrings::new(["END".to_owned()]), ..options(start) };
    let cases = [
        ("ENDhm</think>a END b", "R(ENDhm) C(a ) STOP", true),
        ("</think>EN", "C(EN)", false),
        ("</think>EN<think>D x", "C() STOP", true),
        (
            "</think>EN<|tool_calls_section_begin|><|tool_call_begin|>f:0<|tool_call_argument_begin|>{\"END\":1}<|tool_call_end|>",
            "C(EN) +0(functions.f:0 f) A0({\"END\":1}) -0",
            false,
        ),
    ];
    for (text, expected, hit) in cases {
        let (events, outcome) = parse(text, with_stop(OutputStart::Reasoning));
        assert_eq!(short(&events), expected.replace("C() ", ""), "{text}");
        assert_eq!(outcome.stop_string_hit, hit, "{text}");
    }
}

#[test]
fn arguments_stream_as_they_come_and_tokens_have_roles() {
    let (vocabulary, markers) = real();
    let text = format!(
        "ab</think>cd{SECTION}{CALL}functions.f:0{ARGUMENTS}{{\"a\": 1}}{END_CALL}{END_SECTION}{END}"
    );
    let mut parser = OutputParser::new(vocabulary.clone(), *markers, options(OutputStart::Reasoning));
    let mut roles = Vec::new();
    let mut streamed = 0;
    for token in vocabulary.encode_with_specials(&text) {
        let mut events = Vec::new();
        roles.push(parser.push(token, &mut events));
        streamed += events.iter().filter(|event| matches!(event, OutputEvent::ToolArguments { .. })).count();
    }
    assert!(streamed > 1, "the arguments came in one piece");
    let count = |role| roles.iter().filter(|&&other| other == role).count();
    assert_eq!(parser.reasoning_tokens(), count(TokenRole::Reasoning));
    assert_eq!((count(TokenRole::Reasoning), count(TokenRole::Content), count(TokenRole::Marker)), (1, 1, 7));
    assert_eq!(parser.finish(&mut Vec::new()).reasoning_tokens, 1);
}

/// A parser that searches its whole buffer again at each token takes hours for this, and one that waits for the end of
/// something holds text back.
#[test]
fn long_arguments_stream_at_once_and_arrive_whole() {
    let (vocabulary, markers) = bytes_only();
    let inner = r#"fn main() { println!(\"<|tool_call_end|> </think> \\\" {} [\"); }\n"#;
    let json = format!(r#"{{"query": "{}"}}"#, inner.repeat(1 << 20 >> 6));
    assert!(json.len() > 1 << 20);
    let mut parser = OutputParser::new(vocabulary.clone(), *markers, options(OutputStart::Reasoning));
    let (mut events, mut arrived) = (Vec::new(), String::new());
    let mut push = |token| {
        parser.push(token, &mut events);
        for event in events.drain(..) {
            if let OutputEvent::ToolArguments { json, .. } = event {
                arrived += &json;
            }
        }
        arrived.len()
    };
    for token in vocabulary.encode_with_specials(&format!("hm{SECTION}{CALL}functions.search:0{ARGUMENTS}")) {
        push(token);
    }
    for (index, byte) in json.bytes().enumerate() {
        // White space may turn out to be the end.
        assert!(push(u32::from(byte)) + 4 > index, "held back at {index}");
    }
    for token in vocabulary.encode_with_specials(&format!("{END_CALL}{END_SECTION}{END}")) {
        push(token);
    }
    assert_eq!(arrived, json);
    let outcome = parser.finish(&mut events);
    assert_eq!((outcome.tool_calls, outcome.malformed, events.len()), (1, 0, 0));
}

/// Tokens of all kinds; `real` ids end inside characters often enough.
fn any_tokens() -> impl Strategy<Value = Vec<u32>> {
    let (vocabulary, markers) = bytes_only();
    let ids: Vec<u32> =
        ["</think>", "<think>", SECTION, END_SECTION, CALL, ARGUMENTS, END_CALL, "<|im_user|>"]
            .map(|name| vocabulary.special(name).expect("a marker"))
            .to_vec();
    let letters = proptest::sample::select(b"{}:\"09 \nfquery.sc\xe8\xaa\x9e".map(u32::from).to_vec());
    let token = prop_oneof![
        12 => letters,
        10 => proptest::sample::select(ids),
        1 => Just(markers.im_end),
        1 => any::<u32>(),
    ];
    proptest::collection::vec(token, 0..60)
}

fn any_options() -> impl Strategy<Value = ParserOptions> {
    let start = prop_oneof![Just(OutputStart::Reasoning), Just(OutputStart::Content)];
    let tools = prop_oneof![Just(0_usize), Just(1), Just(2)];
    (start, tools, 0_usize..3, proptest::option::of("[fq]{1,2}")).prop_map(
        |(start, tools, first_tool_index, stop)| {
            let ParserOptions { tools: mut declared, .. } = options(start);
            declared.truncate(tools);
            ParserOptions { start, stop_strings: StopStrings::new(stop), first_tool_index, tools: declared }
        },
    )
}

/// What holds for every output: a client can follow the events without ever being surprised.
fn check_grammar(events: &[OutputEvent], outcome: ParsedOutcome) -> Result<(), TestCaseError> {
    let mut ids = std::collections::BTreeSet::new();
    let mut open = None;
    let mut finished = 0;
    for (position, event) in events.iter().enumerate() {
        match event {
            OutputEvent::Reasoning(text) => {
                let before = events[..position].iter();
                prop_assert!(
                    before.clone().all(|event| matches!(event, OutputEvent::Reasoning(_))),
                    "reasoning comes first"
                );
                prop_assert!(!text.is_empty());
            }
            OutputEvent::Content(text) => prop_assert!(!text.is_empty() && open.is_none()),
            OutputEvent::ToolCallStarted { index, id, name } => {
                prop_assert!(open.is_none() && *index == ids.len() && !name.is_empty());
                prop_assert!(ids.insert(id), "{} twice", id);
                let counter = id.strip_prefix(&format!("functions.{name}:"));
                prop_assert!(
                    counter.is_some_and(|counter| counter.bytes().all(|byte| byte.is_ascii_digit()))
                );
                open = Some(*index);
            }
            OutputEvent::ToolArguments { index, json } => {
                prop_assert!(open == Some(*index) && !json.is_empty());
            }
            OutputEvent::ToolCallFinished { index } => {
                prop_assert_eq!(open.take(), Some(*index));
                finished += 1;
            }
            OutputEvent::StopStringHit { .. } => prop_assert_eq!(position + 1, events.len()),
        }
    }
    prop_assert_eq!(outcome.tool_calls, finished);
    prop_assert!(open.is_none() || outcome.unfinished_tool_call);
    prop_assert_eq!(
        outcome.stop_string_hit,
        matches!(events.last(), Some(OutputEvent::StopStringHit { .. }))
    );
    Ok(())
}

/// Events joined where one continues the other, as a client reads them.
fn joined(events: Vec<OutputEvent>) -> Vec<OutputEvent> {
    let mut out: Vec<OutputEvent> = Vec::new();
    for event in events {
        match (out.last_mut(), event) {
            (Some(OutputEvent::Reasoning(last)), OutputEvent::Reasoning(text))
            | (Some(OutputEvent::Content(last)), OutputEvent::Content(text))
            | (
                Some(OutputEvent::ToolArguments { json: last, .. }),
                OutputEvent::ToolArguments { json: text, .. },
            ) => {
                last.push_str(&text);
            }
            (_, event) => out.push(event),
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Any tokens give a grammatical list of events, the same whether it is read after every token or at the end.
    #[test]
    fn any_tokens_parse(tokens in any_tokens(), options in any_options()) {
        let (vocabulary, markers) = bytes_only();
        let mut whole = OutputParser::new(vocabulary.clone(), *markers, options.clone());
        let mut stepped = OutputParser::new(vocabulary.clone(), *markers, options);
        let (mut at_end, mut at_each) = (Vec::new(), Vec::new());
        for token in tokens {
            whole.push(token, &mut at_end);
            let mut events = Vec::new();
            stepped.push(token, &mut events);
            at_each.extend(events);
        }
        let outcome = whole.finish(&mut at_end);
        let mut events = Vec::new();
        prop_assert_eq!(stepped.finish(&mut events), outcome);
        at_each.extend(events);
        check_grammar(&at_each, outcome)?;
        prop_assert_eq!(joined(at_each), joined(at_end));
    }

    /// A well-formed output comes back as it was meant, whatever tokens its text is cut into.
    #[test]
    fn well_formed_output_comes_back(
        reasoning in "[a-z語<>\n ]{0,20}",
        content in "[a-z語<>\n ]{0,20}",
        calls in proptest::collection::vec(("[a-z_]{1,8}", "[a-z語 ]{0,12}"), 0..3),
        after in "[a-z語]{0,8}",
    ) {
        let arguments: Vec<String> =
            calls.iter().map(|(name, value)| serde_json::json!({name.as_str(): value}).to_string()).collect();
        let mut text = format!("{reasoning}</think>{content}");
        let mut expected = Vec::new();
        let push = |expected: &mut Vec<OutputEvent>, event: OutputEvent, text: &str| {
            if !text.is_empty() {
                expected.push(event);
            }
        };
        push(&mut expected, OutputEvent::Reasoning(reasoning.clone()), &reasoning);
        push(&mut expected, OutputEvent::Content(content.clone()), &content);
        text.push_str(if calls.is_empty() { "" } else { SECTION });
        for (index, ((name, _), json)) in calls.iter().zip(&arguments).enumerate() {
            let id = format!("functions.{name}:{index}");
            text += &call(&id, json);
            expected.push(OutputEvent::ToolCallStarted { index, id, name: name.clone() });
            expected.push(OutputEvent::ToolArguments { index, json: json.clone() });
            expected.push(OutputEvent::ToolCallFinished { index });
        }
        text.push_str(if calls.is_empty() { "" } else { END_SECTION });
        text += &after;
        push(&mut expected, OutputEvent::Content(after.clone()), &after);
        let expected = joined(expected);
        for (vocabulary, markers) in [bytes_only(), real()] {
            let mut parser = OutputParser::new(vocabulary.clone(), *markers, options(OutputStart::Reasoning));
            let mut events = Vec::new();
            for token in vocabulary.encode_with_specials(&format!("{text}{END}")) {
                parser.push(token, &mut events);
            }
            let outcome = parser.finish(&mut events);
            prop_assert_eq!(&events, &expected);
            prop_assert_eq!((outcome.tool_calls, outcome.malformed), (calls.len(), 0));
        }
    }
}
