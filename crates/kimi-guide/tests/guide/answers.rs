//! The shape of whole answers: reasoning, budgets, choices, calls.

use kimi_chat::OutputStart;
use kimi_guide::{AnswerFormat, AnswerPlan, CallRule};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::harness::{Taste, VOCABULARY, content, follow, markers, plan, schema, tool, write};

fn point() -> Value {
    json!({"type": "object", "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["x"], "additionalProperties": false})
}

fn is_point(text: &str) -> bool {
    let value: Value = serde_json::from_str(text).expect("JSON");
    value["x"].as_u64().is_some_and(|x| x < 100)
}

/// A model that insists on a text and takes whatever it gets where that is not allowed.
fn say(plan: AnswerPlan, text: &str, max_tokens: usize) -> crate::harness::Answer {
    let mut script = VOCABULARY.encode_with_specials(text).into_iter();
    follow(plan, max_tokens, move |row| {
        row.fill(0.0);
        if let Some(token) = script.next() {
            row[token as usize] = 1.0;
        }
    })
}

#[test]
fn the_budget_closes_the_reasoning() {
    for budget in [0, 1, 7] {
        let asked = AnswerPlan { thinking_budget: Some(budget), ..plan(OutputStart::Reasoning) };
        let answer = say(asked, "abcdefghijklmnopqrstuvwxyz", 20);
        assert_eq!(answer.outcome.reasoning_tokens, budget);
        assert_eq!(answer.tokens[budget], markers().end_think);
    }
    let short = AnswerPlan { thinking_budget: Some(50), ..plan(OutputStart::Reasoning) };
    assert_eq!(say(short, "a b</think>Hi<|im_end|>", 20).content, "Hi");
}

#[test]
fn a_format_begins_after_the_reasoning() {
    let asked = AnswerPlan { start: OutputStart::Reasoning, ..content(&schema(point())) };
    // The end of the message is not allowed before there is an answer, and free text is in the reasoning.
    let answer = say(asked, "free {\"y\": <|im_end|></think>{\"x\": 7}<|im_end|>", 60);
    assert!(answer.reasoning.starts_with("free {\"y\": "), "{answer:?}");
    assert_eq!(answer.content, "{\"x\": 7}");
    assert!(answer.ended && !answer.cut);
}

#[test]
fn a_required_call_is_made_after_the_reasoning_and_nothing_else() {
    let two = || vec![tool("read_file", point()), tool("read", point())];
    let asked = || AnswerPlan { calls: CallRule::Required, tools: two(), ..plan(OutputStart::Reasoning) };
    for seed in 0..40 {
        let plan = AnswerPlan { thinking_budget: Some(9), one_call: seed % 2 == 0, ..asked() };
        let answer = write(plan, Taste::Endings, seed, 300);
        assert!(!answer.calls.is_empty() && answer.content.is_empty(), "{answer:?}");
        assert!(seed % 2 == 1 || answer.calls.len() == 1);
        for (number, (name, id, arguments, finished)) in answer.calls.iter().enumerate() {
            assert!(["read", "read_file"].contains(&name.as_str()) && *finished);
            assert_eq!(*id, format!("functions.{name}:{number}"));
            assert!(is_point(arguments), "{arguments}");
        }
    }
}

#[test]
fn forbidden_calls_are_not_made() {
    let asked = AnswerPlan {
        calls: CallRule::Forbidden,
        tools: vec![tool("f", point())],
        ..plan(OutputStart::Reasoning)
    };
    let call = "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}";
    let answer = say(asked, &format!("{call}</think>{call}<|im_end|>"), 100);
    assert!(answer.calls.is_empty(), "{answer:?}");
}

#[test]
fn a_free_call_names_a_declared_tool_and_keeps_its_schema() {
    let asked =
        || AnswerPlan { tools: vec![tool("f", point()), tool("g", json!({}))], ..plan(OutputStart::Content) };
    let answer = say(
        asked(),
        "I will.<|tool_calls_section_begin|><|tool_call_begin|>functions.rm:0<|tool_call_argument_begin|>{\"y\": 1}",
        200,
    );
    assert_eq!(answer.content, "I will.");
    assert!(answer.calls.iter().all(|(name, ..)| name == "f" || name == "g"), "{answer:?}");
    // A call of its own accord in the middle of the reasoning ends it.
    let asked = AnswerPlan { start: OutputStart::Reasoning, ..asked() };
    let answer = say(
        asked,
        "hm<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"x\": 5}\
         <|tool_call_end|><|tool_calls_section_end|><|im_end|>",
        200,
    );
    assert_eq!(answer.calls, [("f".into(), "functions.f:0".into(), "{\"x\": 5}".into(), true)]);
    assert!(answer.ended && answer.reasoning == "hm");
}

#[test]
fn with_a_format_and_tools_the_model_may_call_or_answer() {
    let asked = || AnswerPlan { tools: vec![tool("f", point())], ..content(&AnswerFormat::JsonObject) };
    let call = "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"x\":1}\
        <|tool_call_end|><|tool_calls_section_end|><|im_end|>";
    let answer = say(asked(), call, 100);
    assert_eq!((answer.calls.len(), answer.content.as_str()), (1, ""));
    let answer = say(asked(), "{\"a\": [1, 2]}<|im_end|>", 100);
    assert_eq!((answer.calls.len(), answer.content.as_str()), (0, "{\"a\": [1, 2]}"));
    // Not both: a text that was begun is finished.
    let answer = say(asked(), &format!("{{\"a\": 1}}{call}"), 100);
    assert_eq!((answer.calls.len(), answer.content.as_str()), (0, "{\"a\": 1}"));
}

#[test]
fn other_formats_are_kept_and_closed() {
    let formats = [
        (AnswerFormat::Regex("[0-9]{4}-[0-9]{2}".into()), "^[0-9]{4}-[0-9]{2}$"),
        (AnswerFormat::Regex("(yes|no), because .{5,}".into()), "^(yes|no), because .{5,}$"),
        (AnswerFormat::Regex("a/b\\d+".into()), "^a/b\\d+$"),
        (AnswerFormat::Choice(vec!["spam".into(), "ham \"and\" eggs".into()]), "^(spam|ham \"and\" eggs)$"),
        (
            AnswerFormat::Grammar("start: \"x\" NUM (\"+\" NUM)*\nNUM: /[0-9]+/".into()),
            "^x[0-9]+(\\+[0-9]+)*$",
        ),
    ];
    for (format, expected) in formats {
        let expected = regex::Regex::new(expected).unwrap();
        for (seed, max_tokens) in (0..20).zip([24, 40, 200].into_iter().cycle()) {
            let answer = write(content(&format), Taste::Any, seed, max_tokens);
            assert!(expected.is_match(&answer.content), "{format:?} gave {:?}", answer.content);
        }
    }
}

#[test]
fn an_end_that_was_forced_is_told() {
    let format =
        schema(json!({"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}));
    let long = format!("{{\"text\": \"{}", "a".repeat(500));
    let answer = say(content(&format), &long, 60);
    assert!(answer.cut && answer.content.ends_with("a\"}"), "{answer:?}");
    assert!(answer.tokens.len() <= 60);
    let answer = say(content(&format), "{\"text\": \"a\"}<|im_end|>", 60);
    assert!(!answer.cut && answer.ended);
}

#[test]
fn numbers_end_even_for_a_model_that_never_ends_them() {
    let odd = VOCABULARY.encode_with_specials("1")[0] as usize;
    for number in [
        json!({"type": "integer", "multipleOf": 2}),
        json!({"type": "number", "exclusiveMinimum": 0}),
        json!({"type": "number"}),
    ] {
        let list = json!({"type": "object", "properties": {"n": {"type": "array", "items": number, "maxItems": 3}},
            "required": ["n"], "additionalProperties": false});
        let answer = follow(content(&schema(list.clone())), 3000, |row| {
            row.fill(0.0);
            row[odd] = 1.0;
        });
        assert!(answer.ended && !answer.cut, "{answer:?}");
        let value: Value = serde_json::from_str(&answer.content).expect("JSON");
        assert!(jsonschema::is_valid(&list, &value), "{value}");
    }
}

#[test]
fn too_few_tokens_for_anything_cut_the_answer() {
    let answer = write(content(&schema(point())), Taste::Any, 1, 3);
    assert_eq!(answer.tokens.len(), 3);
    assert!(!answer.ended);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any plan, any model, any number of tokens: the parser finds nothing out of place.
    #[test]
    fn no_answer_is_malformed(
        seed: u64, reasoning: bool, budget in prop::option::of(0_usize..40), format: bool, tools: bool, required: bool,
        one_call: bool, max_tokens in 1_usize..300, endings: bool,
    ) {
        let plan = AnswerPlan {
            start: if reasoning { OutputStart::Reasoning } else { OutputStart::Content },
            thinking_budget: budget,
            content: format.then(|| content(&schema(point())).content.expect("a format")),
            calls: if required { CallRule::Required } else { CallRule::Free },
            tools: if tools { vec![tool("f", point()), tool("f-g", json!({"type": "object"}))] } else { vec![] },
            one_call,
            first_call: 2,
        };
        let answer = write(plan, if endings { Taste::Endings } else { Taste::Any }, seed, max_tokens);
        if format || tools {
            for (name, id, arguments, finished) in &answer.calls {
                prop_assert!(name == "f" || name == "f-g");
                let expected = format!("functions.{name}:");
                prop_assert!(id.starts_with(&expected));
                prop_assert!(!finished || serde_json::from_str::<Value>(arguments).is_ok(), "{}", arguments);
            }
            prop_assert!(!one_call || answer.calls.len() <= 1);
        }
        if answer.ended && format && answer.calls.is_empty() {
            prop_assert!(is_point(&answer.content), "{}", answer.content);
        }
        prop_assert!(budget.is_none_or(|budget| answer.outcome.reasoning_tokens <= budget));
    }
}
