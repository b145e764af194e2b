//! What is refused, in which words, and how soon.

use std::time::{Duration, Instant};

use kimi_guide::{AnswerFormat, CompileError, Guides};
use serde_json::{Value, json};

use crate::harness::{GUIDES, VOCABULARY, markers, schema};

fn refusal(format: &AnswerFormat) -> String {
    let started = Instant::now();
    let error = GUIDES.compile(format).expect_err("refused").to_string();
    assert!(started.elapsed() < Duration::from_secs(12), "{error} took {:?}", started.elapsed());
    assert!(!error.contains('\n') && error.len() < 400, "{error}");
    error
}

#[test]
fn malformed_schemas_are_told_where() {
    let cases = [
        (json!({"type": "banana"}), "at #/type: \"banana\" is no type"),
        (json!({"properties": {"a": 7}}), "at #/properties/a: a schema must be an object or a boolean"),
        (json!({"properties": []}), "at #/properties: this must be an object of schemas"),
        (json!({"enum": []}), "at #/enum: this must be an array with at least one member"),
        (json!({"anyOf": {}}), "at #/anyOf: this must be an array of schemas"),
        (json!({"required": "a"}), "at #/required: this must be an array of strings"),
        (json!({"items": {"$ref": "#/$defs/none"}}), "at #/items/$ref: \"#/$defs/none\" does not point into"),
        (json!({"$ref": "https://example.com/s.json"}), "at #/$ref: \"https://example.com/s.json\" does not"),
        (json!({"$ref": "file:///etc/passwd"}), "at #/$ref: \"file:///etc/passwd\" does not point"),
        (json!({"type": "integer", "minimum": 5, "maximum": 3}), "Unsatisfiable"),
    ];
    for (given, expected) in cases {
        let told = refusal(&schema(given.clone()));
        assert!(told.starts_with(expected), "{given}: {told}");
    }
}

#[test]
fn large_schemas_are_refused_before_they_cost_anything() {
    let nested = (0..40).fold(json!({"type": "string"}), |inner, _| json!({"items": inner}));
    let long: Vec<String> = (0..900).map(|index| format!("{index:0100}")).collect();
    let many = |count: usize| (0..count).map(|index| format!("v{index}")).collect::<Vec<_>>();
    let properties: Value =
        many(3001).into_iter().map(|name| (name, json!({}))).collect::<serde_json::Map<_, _>>().into();
    let cases = [
        (nested, "the depth of the schema may be at most 30, not 31"),
        (json!({"enum": many(1001)}), "the members of an enum may be at most 1000, not 1001"),
        (json!({"enum": long}), "the characters of an enum may be at most 75000, not 91800"),
        (json!({"properties": properties}), "the properties of the schema may be at most 3000, not 3001"),
        (
            json!({"anyOf": vec![json!({}); 501]}),
            "the members of an anyOf, oneOf or allOf may be at most 500, not 501",
        ),
        (
            json!({"description": "x".repeat(120_000)}),
            "the characters of the schema may be at most 120000, not",
        ),
    ];
    for (given, expected) in cases {
        let told = refusal(&schema(given));
        assert!(told.starts_with(expected), "{told}");
    }
}

/// Schemas, expressions and grammars that have killed servers, or try to.
#[test]
fn hostile_formats_are_refused_or_compiled_in_time() {
    let schemas = [
        json!({"$ref": "#"}),
        json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        json!({"$defs": {"t1": {"type": "object", "properties": {"c": {"$ref": "#/$defs/t1"}}},
            "t2": {"type": "object", "properties": {"c": {"$ref": "#/$defs/t2"}}}},
            "allOf": [{"$ref": "#/$defs/t1"}, {"$ref": "#/$defs/t2"}]}),
        json!({"type": "string", "pattern": "(a*)*(b*)*(c*)*$"}),
        json!({"type": "string", "pattern": "((((((a{100}){100}){100}){100}){100}){100})"}),
        json!({"type": "string", "pattern": "(?=lookahead)"}),
        json!({"type": "string", "pattern": "\\"}),
        json!({"type": "string", "minLength": 1_000_000_000_u64}),
        json!({"type": "array", "minItems": 1_000_000_000_u64}),
        json!({"type": "integer", "multipleOf": 0}),
        json!({"type": "integer", "minimum": 1e308}),
        json!({"type": "object", "patternProperties": {"a*": {}, "b*": {}}}),
        json!({"type": "object", "required": (0..2000).map(|index| format!("r{index}")).collect::<Vec<_>>()}),
        json!({"x-guidance": {"whitespace_flexible": true, "item_separator": "(((("}}),
        json!({"x-guidance": 7, "type": "object"}),
        json!({"not": {}}),
        json!(false),
    ];
    let others = [
        AnswerFormat::Regex("(".into()),
        AnswerFormat::Regex("(.*a){30}".into()),
        AnswerFormat::Regex("a{1,1000000000}".into()),
        AnswerFormat::Regex("(?P<x>a)\\k<x>".into()),
        AnswerFormat::Grammar("start: start".into()),
        AnswerFormat::Grammar("start: start start | \"a\"".into()),
        AnswerFormat::Grammar("start: <[163586]>".into()),
        AnswerFormat::Grammar("start: %json {\"$ref\": \"http://127.0.0.1/\"}".into()),
        AnswerFormat::Grammar("root ::= \"gbnf\"".into()),
        AnswerFormat::Grammar(String::new()),
        AnswerFormat::Grammar("start: /(a|b|c)*/{100000}".into()),
    ];
    for format in schemas.into_iter().map(schema).chain(others) {
        let started = Instant::now();
        let outcome = GUIDES.compile(&format).map(|grammar| grammar.shortest());
        let text = format!("{format:?}");
        let text = &text[..text.len().min(100)];
        println!("{:>8.1} ms {outcome:?} {text}", started.elapsed().as_secs_f64() * 1e3);
        // Some seconds at most, and as many again on a machine that does other things too.
        assert!(started.elapsed() < Duration::from_mins(1), "{text}");
    }
}

#[test]
fn strict_schemas_may_hold_nothing_that_is_not_enforced() {
    let unique = json!({"type": "array", "items": {"type": "integer"}, "uniqueItems": true});
    let error = GUIDES.compile(&AnswerFormat::JsonSchema { schema: unique.clone(), strict: true });
    let told = error.expect_err("refused").to_string();
    assert!(told.contains("uniqueItems") && told.starts_with("strict is true"), "{told}");
    let grammar = GUIDES.compile(&schema(unique)).expect("taken without it");
    assert!(grammar.not_enforced()[0].contains("uniqueItems"));
}

#[test]
fn what_the_engine_has_no_automaton_for_is_left_out() {
    let schema =
        json!({"type": "object", "properties": {"pattern": {"type": "string", "pattern": "^(?!a)"}}});
    let grammar = GUIDES.compile(&crate::harness::schema(schema.clone())).expect("taken without it");
    assert!(grammar.not_enforced()[0].contains("look-around"), "{:?}", grammar.not_enforced());
    let told = refusal(&AnswerFormat::JsonSchema { schema, strict: true });
    assert!(told.contains("look-around"), "{told}");
}

#[test]
fn equal_formats_are_compiled_once() {
    let guides = Guides::new(std::sync::Arc::clone(&VOCABULARY), markers());
    let format = |limit| schema(json!({"type": "string", "maxLength": limit}));
    let first = guides.compile(&format(5)).expect("a schema");
    assert!(std::sync::Arc::ptr_eq(&first, &guides.compile(&format(5)).expect("a schema")));
    assert!(!std::sync::Arc::ptr_eq(&first, &guides.compile(&format(6)).expect("a schema")));
    assert_eq!(guides.remembered(), 2);
    guides.compile(&schema(json!({"type": "banana"}))).expect_err("refused");
    assert_eq!(guides.remembered(), 2);
    assert!(matches!(guides.compile(&AnswerFormat::Choice(vec![])), Err(CompileError::Refused(_))));
}
