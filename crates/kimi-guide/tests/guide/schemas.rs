//! Every schema, whatever the model and however few tokens: what is written validates.

use kimi_chat::OutputStart;
use kimi_guide::{AnswerPlan, CallRule};
use serde::Deserialize;
use serde_json::Value;

use crate::harness::{GUIDES, Taste, content, plan, schema, tool, write};

#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) schema: Value,
}

pub(crate) fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../schemas.json")).expect("a list of schemas")
}

fn check(case: &Case, text: &str, how: &str) {
    let name = &case.name;
    assert!(!text.contains(['\n', '\t']), "{name}, {how}: free white space in {text}");
    let instance: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}, {how}: {error} in {text:?}"));
    let validator = jsonschema::draft202012::new(&case.schema).expect("a schema");
    if let Err(error) = validator.validate(&instance) {
        panic!("{name}, {how}: {error} in {text}");
    }
}

/// Tokens of the shortest text that was found for it.
fn shortest(case: &Case) -> usize {
    let grammar = GUIDES.compile(&schema(case.schema.clone())).expect("a format");
    grammar.shortest().unwrap_or_else(|| panic!("{}: no shortest text found", case.name))
}

#[test]
fn there_are_two_hundred_schemas() {
    assert!(cases().len() >= 200, "{}", cases().len());
}

#[test]
fn every_answer_validates() {
    for (index, case) in cases().iter().enumerate() {
        let format = schema(case.schema.clone());
        for (seed, taste, max_tokens) in
            [(1, Taste::Endings, 4000), (2, Taste::Endings, 400), (3, Taste::Any, 700)]
        {
            let max_tokens = max_tokens.max(shortest(case));
            let answer = write(content(&format), taste, seed + 10 * index as u64, max_tokens);
            check(case, &answer.content, &format!("{taste:?} within {max_tokens}"));
            assert_eq!(answer.outcome.malformed, 0, "{}", case.name);
        }
    }
}

/// With exactly the tokens that the shortest text takes, and with a few more.
#[test]
fn answers_are_closed_before_the_tokens_run_out() {
    for (index, case) in cases().iter().enumerate() {
        let format = schema(case.schema.clone());
        for spare in [0, 1, 3, 10, 40] {
            let max_tokens = shortest(case) + spare;
            let answer = write(content(&format), Taste::Any, 7 + index as u64, max_tokens);
            check(case, &answer.content, &format!("{spare} tokens to spare"));
        }
    }
}

#[test]
fn arguments_of_every_call_validate() {
    for (index, case) in cases().iter().enumerate() {
        for (seed, taste, max_tokens) in [(5, Taste::Endings, 900), (6, Taste::Any, 500)] {
            let asked = AnswerPlan {
                calls: CallRule::Required,
                tools: vec![tool("f", case.schema.clone())],
                first_call: 3,
                ..plan(OutputStart::Content)
            };
            let max_tokens = max_tokens.max(shortest(case) + 40);
            let answer = write(asked, taste, seed + 10 * index as u64, max_tokens);
            assert!(!answer.calls.is_empty(), "{}: {:?}", case.name, answer.content);
            assert_eq!(answer.content, "", "{}", case.name);
            for (number, (name, id, arguments, finished)) in answer.calls.iter().enumerate() {
                assert_eq!((name.as_str(), *finished), ("f", true), "{}: {answer:?}", case.name);
                assert_eq!(*id, format!("functions.f:{}", 3 + number));
                check(case, arguments, "as arguments");
            }
            assert_eq!(answer.outcome.malformed, 0, "{}", case.name);
        }
    }
}
