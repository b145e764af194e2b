//! The ids of past tool calls.

use kimi_chat::render;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::bytes_only;
use crate::template::{DEFAULT, conversation};

/// The ids in a prompt: of the calls, and of the calls that tool messages answer.
fn ids(messages: &Value) -> (Vec<String>, Vec<String>) {
    let (vocabulary, markers) = bytes_only();
    let prompt = render(&conversation(messages, &json!([]), DEFAULT), vocabulary, markers).expect("renders");
    let between = |start: &str, end: &str| -> Vec<String> {
        prompt.split(start).skip(1).map(|rest| rest.split(end).next().expect("text").to_owned()).collect()
    };
    (between("<|tool_call_begin|>", "<|tool_call_argument_begin|>"), between("## Return of ", "\n"))
}

fn assistant(calls: &[(&str, &str)]) -> Value {
    let call = |(id, name): &(&str, &str)| json!({"id": id, "function": {"name": name, "arguments": "{}"}});
    json!({"role": "assistant", "tool_calls": calls.iter().map(call).collect::<Vec<_>>()})
}

fn result(id: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": "1"})
}

#[test]
fn foreign_ids_become_native_and_results_follow() {
    let (calls, results) = ids(&json!([
        assistant(&[("functions.f:0", "f"), ("call_9", "g")]),
        result("call_9"),
        result("functions.f:0"),
        assistant(&[
            ("functions_f_2", "f"),
            ("functions.other:3", "f"),
            ("f:4", "f"),
            ("functions.f:x", "f")
        ]),
        result("f:4"),
    ]));
    let expected = [
        "functions.f:0",
        "functions.g:1",
        "functions.f:2",
        "functions.f:3",
        "functions.f:4",
        "functions.f:5",
    ];
    assert_eq!(calls, expected);
    assert_eq!(results, ["functions.g:1", "functions.f:0", "functions.f:4"]);
}

#[test]
fn reused_ids_mean_the_nearest_call() {
    let (calls, results) = ids(&json!([
        assistant(&[("call_0", "f")]),
        result("call_0"),
        assistant(&[("call_0", "f")]),
        result("call_0"),
        // Twice in one message: answered in order.
        assistant(&[("call_0", "f"), ("call_0", "g")]),
        result("call_0"),
        result("call_0"),
        // Native, but taken.
        assistant(&[("functions.f:0", "f")]),
        result("functions.f:0"),
        // An earlier message's call may still be answered.
        result("call_0"),
    ]));
    assert_eq!(calls, ["functions.f:0", "functions.f:1", "functions.f:2", "functions.g:3", "functions.f:4"]);
    let expected = [
        "functions.f:0",
        "functions.f:1",
        "functions.f:2",
        "functions.g:3",
        "functions.f:4",
        "functions.g:3",
    ];
    assert_eq!(results, expected);
}

proptest! {
    /// However clients name calls: ids are unique, native for their tool, and a longer history changes none of them.
    #[test]
    fn ids_are_unique_native_and_stable(
        turns in proptest::collection::vec(
            proptest::collection::vec(("(functions\\.)?[fg]?(:[0-3])?|call_[01]", "[fg]"), 1..4), 1..5),
    ) {
        let messages: Vec<Value> = turns
            .iter()
            .map(|calls| assistant(&calls.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect::<Vec<_>>()))
            .collect();
        let names: Vec<&String> = turns.iter().flatten().map(|(_, name)| name).collect();
        let (calls, _) = ids(&json!(messages));
        let mut unique = calls.clone();
        unique.sort();
        unique.dedup();
        prop_assert_eq!(unique.len(), calls.len());
        for (id, name) in calls.iter().zip(names) {
            let index = id.strip_prefix(&format!("functions.{name}:"));
            prop_assert!(index.is_some_and(|index| index.parse::<u32>().is_ok()), "{}", id);
        }
        let (shorter, _) = ids(&json!(messages[..messages.len() - 1]));
        prop_assert_eq!(&calls[..shorter.len()], &shorter);
    }
}
