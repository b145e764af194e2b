//! Formats, tool choices and budgets over HTTP, with models that would rather say something else.

use kimi_engine::FakeRunner;
use serde_json::{Value, json};

use crate::harness::{Server, Setup, chunks, hello_with, saying};

/// A model that says `text` where it may.
async fn insisting(text: &str) -> Server {
    Setup::new(saying(text).keeping_constraints()).serve().await
}

/// A model without any sense.
async fn random() -> Server {
    Setup::new(FakeRunner::hashed(269).keeping_constraints()).serve().await
}

fn weather() -> Value {
    json!({"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
        "required": ["city", "days"], "additionalProperties": false}}})
}

fn is_weather(arguments: &str) -> bool {
    let value: Value = serde_json::from_str(arguments).expect("JSON");
    value["city"].is_string() && value["days"].as_u64().is_some_and(|days| (1..=7).contains(&days))
}

async fn ask(server: &Server, extra: Value) -> Value {
    let (status, answer) = server.chat(&hello_with(extra.clone())).await;
    assert_eq!(status, 200, "{extra}: {answer}");
    answer["choices"][0].clone()
}

async fn refusal(server: &Server, extra: Value) -> String {
    let (status, answer) = server.chat(&hello_with(extra.clone())).await;
    assert_eq!(
        (status, answer["error"]["type"].as_str()),
        (400, Some("invalid_request_error")),
        "{extra}: {answer}"
    );
    answer["error"]["message"].as_str().expect("a message").to_owned()
}

#[tokio::test]
async fn a_json_schema_is_kept_after_the_reasoning_and_without_it() {
    let server = random().await;
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 2]}},
        "required": ["ok", "n"], "additionalProperties": false});
    for thinking in ["enabled", "disabled"] {
        for format in [
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}),
            json!({"structured_outputs": {"json": schema}}),
            json!({"structured_outputs": {"json": schema.to_string()}}),
        ] {
            for seed in 0..5 {
                let mut body = format.clone();
                body["thinking"] = json!({"type": thinking});
                body["thinking_budget"] = json!(10);
                body["seed"] = json!(seed);
                body["max_tokens"] = json!(200);
                let choice = ask(&server, body).await;
                let text = choice["message"]["content"].as_str().unwrap();
                let value: Value =
                    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {choice}"));
                assert!(value["ok"].is_boolean() && [1, 2].contains(&value["n"].as_i64().unwrap()), "{text}");
                assert_eq!(choice["finish_reason"], "stop");
            }
        }
    }
}

#[tokio::test]
async fn the_other_formats() {
    let server = random().await;
    let content = async |format: Value| {
        let mut body = format;
        body["thinking"] = json!({"type": "disabled"});
        body["max_tokens"] = json!(120);
        ask(&server, body).await["message"]["content"].as_str().unwrap().to_owned()
    };
    let object = content(json!({"response_format": {"type": "json_object"}})).await;
    assert!(serde_json::from_str::<Value>(&object).expect("JSON").is_object(), "{object}");
    let loose = json!({"type": "json_schema", "json_schema": {"name": "x", "strict": false, "schema": {"type": "array"}}});
    let object = content(json!({"response_format": loose})).await;
    assert!(serde_json::from_str::<Value>(&object).expect("JSON").is_object(), "{object}");
    assert!(
        ["red", "blue"]
            .contains(&content(json!({"structured_outputs": {"choice": ["red", "blue"]}})).await.as_str())
    );
    let code = content(json!({"structured_outputs": {"regex": "[A-Z]{2}[0-9]{3}"}})).await;
    assert!(code.len() == 5 && code[2..].parse::<u32>().is_ok(), "{code}");
    let sum =
        content(json!({"structured_outputs": {"grammar": "start: DIGIT (\"+\" DIGIT)*\nDIGIT: /[0-9]/"}}))
            .await;
    assert!(sum.split('+').all(|digit| digit.parse::<u8>().is_ok()), "{sum}");
}

#[tokio::test]
async fn a_format_that_runs_out_of_tokens_is_closed_and_says_so() {
    let server = insisting(&format!("{{\"text\": \"{}", "x".repeat(500))).await;
    let schema = json!({"type": "object", "properties": {"text": {"type": "string"}, "more": {"type": "integer"}},
        "required": ["text", "more"]});
    let body = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "thinking": {"type": "disabled"}, "max_tokens": 80});
    let choice = ask(&server, body).await;
    let value: Value = serde_json::from_str(choice["message"]["content"].as_str().unwrap()).expect("JSON");
    assert!(value["text"].as_str().unwrap().len() > 30 && value["more"].is_i64(), "{choice}");
    assert_eq!(choice["finish_reason"], "length");
}

#[tokio::test]
async fn calls_are_made_when_they_are_required_and_validate() {
    let server = random().await;
    let other = json!({"type": "function", "function": {"name": "get_weather_map"}});
    let named = json!({"type": "function", "function": {"name": "get_weather"}});
    for thinking in ["enabled", "disabled"] {
        for (choice, names) in
            [(json!("required"), &["get_weather", "get_weather_map"][..]), (named.clone(), &["get_weather"])]
        {
            for seed in 0..10 {
                let answer = ask(
                    &server,
                    json!({"tools": [weather(), other], "tool_choice": choice, "seed": seed, "max_tokens": 400,
                        "thinking": {"type": thinking}, "thinking_budget": 5, "parallel_tool_calls": seed % 2 == 0}),
                )
                .await;
                let calls = answer["message"]["tool_calls"].as_array().unwrap_or_else(|| panic!("{answer}"));
                assert!(seed % 2 == 0 || calls.len() == 1);
                assert_eq!(answer["message"]["content"], "");
                for (index, call) in calls.iter().enumerate() {
                    let name = call["function"]["name"].as_str().unwrap();
                    let arguments = call["function"]["arguments"].as_str().unwrap();
                    assert!(names.contains(&name), "{call}");
                    assert_eq!(call["id"], format!("functions.{name}:{index}"));
                    assert!(
                        if name == "get_weather" { is_weather(arguments) } else { arguments == "{}" },
                        "{call}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_stream_of_calls_is_the_whole_answer() {
    let server = random().await;
    let body =
        hello_with(json!({"tools": [weather()], "tool_choice": "required", "seed": 4, "max_tokens": 200,
        "thinking": {"type": "disabled"}}));
    let (_, whole) = server.chat(&body).await;
    let mut calls: Vec<(String, String)> = Vec::new();
    for chunk in chunks(&server.transcript(body).await) {
        for call in chunk["choices"][0]["delta"]["tool_calls"].as_array().into_iter().flatten() {
            if let Some(id) = call["id"].as_str() {
                calls.push((id.to_owned(), String::new()));
            }
            let last = calls.last_mut().expect("a call");
            last.1.push_str(call["function"]["arguments"].as_str().unwrap_or_default());
        }
    }
    let expected = whole["choices"][0]["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), expected.len());
    for ((id, arguments), call) in calls.iter().zip(expected) {
        assert_eq!(
            (id.as_str(), arguments.as_str()),
            (call["id"].as_str().unwrap(), call["function"]["arguments"].as_str().unwrap())
        );
        assert!(is_weather(arguments));
    }
}

#[tokio::test]
async fn forbidden_calls_are_not_made() {
    let call = "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{}";
    let server = insisting(&format!("{call}</think>{call}<|im_end|>")).await;
    let answer = ask(&server, json!({"tools": [weather()], "tool_choice": "none", "max_tokens": 150})).await;
    assert!(answer["message"].get("tool_calls").is_none(), "{answer}");
}

#[tokio::test]
async fn budgets_end_the_reasoning() {
    let server = insisting(&format!("{}</think>Hi<|im_end|>", "x".repeat(60))).await;
    for budget in [
        json!({"thinking_budget": 7}),
        json!({"thinking_token_budget": 7}),
        json!({"thinking": {"type": "enabled", "budget_tokens": 7}}),
        json!({"reasoning": {"max_tokens": 7}}),
    ] {
        let mut body = budget.clone();
        body["max_tokens"] = json!(20);
        let (_, answer) = server.chat(&hello_with(body)).await;
        assert_eq!(answer["choices"][0]["message"]["reasoning_content"], "xxxxxxx", "{budget}");
        assert_eq!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], 7);
    }
    let free = ask(&server, json!({"thinking_budget": 100})).await;
    assert_eq!(
        free["message"],
        json!({"role": "assistant", "content": "Hi", "reasoning_content": "x".repeat(60)})
    );
}

#[tokio::test]
async fn answers_do_not_end_before_min_tokens() {
    let server = insisting("</think>a<|im_end|>").await;
    let (_, answer) = server.chat(&hello_with(json!({"min_tokens": 9, "max_tokens": 30}))).await;
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 9, "{answer}");
    let (_, answer) = server.chat(&hello_with(json!({"min_tokens": 2}))).await;
    assert_eq!(answer["usage"]["completion_tokens"], 3);
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused() {
    let server = random().await;
    let format =
        |described: Value| json!({"response_format": {"type": "json_schema", "json_schema": described}});
    let tool = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
    let partial =
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "{", "partial": true}]);
    for (extra, expected) in [
        (
            json!({"response_format": {"type": "xml"}}),
            "Invalid request: response_format.type: unknown variant `xml`",
        ),
        (
            json!({"response_format": {"type": "json_schema"}}),
            "Invalid request: response_format.json_schema is missing",
        ),
        (format(json!({"schema": {}})), "Invalid request: response_format.json_schema.name is missing"),
        (format(json!({"name": "x"})), "Invalid request: response_format.json_schema.schema is missing"),
        (
            format(json!({"name": "x", "schema": []})),
            "Invalid request: response_format.json_schema.schema must be",
        ),
        (
            format(json!({"name": "x", "schema": {}, "strict": "yes"})),
            "Invalid request: response_format.json_schema.strict must",
        ),
        (
            format(json!({"name": "x", "schema": {"type": "banana"}})),
            "Invalid request: the format of the answer: at #/type: \"banana\" is no type",
        ),
        (
            format(json!({"name": "x", "schema": {"type": "array", "uniqueItems": true}, "strict": true})),
            "Invalid request: the format of the answer: strict is true but this cannot be enforced: Unimplemented keys: [\"uniqueItems\"]",
        ),
        (json!({"structured_outputs": {}}), "Invalid request: structured_outputs must have exactly one of"),
        (
            json!({"structured_outputs": {"regex": "a", "choice": ["a"]}}),
            "Invalid request: structured_outputs must have",
        ),
        (json!({"structured_outputs": {"regex": "("}}), "Invalid request: the format of the answer: "),
        (
            json!({"structured_outputs": {"choice": []}}),
            "Invalid request: the format of the answer: there must be at least",
        ),
        (
            json!({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}),
            "Invalid request: response_format and structured_outputs both describe the answer",
        ),
        (
            json!({"response_format": {"type": "json_object"}, "messages": partial}),
            "Invalid request: response_format cannot be used together with partial",
        ),
        (
            tool(json!({"name": "f", "parameters": {"type": "string"}})),
            "Invalid request: the parameters of function f must describe an object",
        ),
        (
            tool(json!({"name": "f", "parameters": {"properties": {"a": {"$ref": "https://example.com"}}}})),
            "Invalid request: the parameters of function f: at #/properties/a/$ref: ",
        ),
        (
            tool(json!({"name": "f", "strict": true, "parameters": {"type": "object", "not": {}}})),
            "Invalid request: the parameters of function f: strict is true but this cannot be enforced",
        ),
        (json!({"thinking_budget": 0}), "Invalid request: thinking_budget must be at least 1, not 0"),
        (
            json!({"thinking_budget": 5, "thinking_token_budget": 6}),
            "Invalid request: thinking_budget is 5 and thinking_token_budget is 6; send one of them",
        ),
        (
            json!({"min_tokens": 9, "max_tokens": 8}),
            "Invalid request: min_tokens must be from 0 to the most tokens",
        ),
        (json!({"min_tokens": -1}), "Invalid request: min_tokens must be from 0"),
    ] {
        let told = refusal(&server, extra.clone()).await;
        assert!(told.starts_with(expected), "{extra}: {told}");
    }
}

#[tokio::test]
async fn without_strict_what_cannot_be_enforced_is_passed_over() {
    let server = random().await;
    let properties = json!({"a": {"type": "string", "pattern": "^(?!x)"}});
    let function =
        json!({"name": "f", "parameters": {"type": "object", "properties": properties, "not": {}}});
    let loose = json!({"tools": [{"type": "function", "function": function}]});
    assert_eq!(server.chat(&hello_with(loose)).await.0, 200);
}

#[tokio::test]
async fn the_hosted_contract_forces_no_call_while_thinking() {
    let server = Setup::moonshot().serve().await;
    let named = json!({"type": "function", "function": {"name": "get_weather"}});
    for (choice, name) in [(json!("required"), "required"), (named, "specified")] {
        let body = json!({"tools": [weather()], "tool_choice": choice});
        assert_eq!(
            refusal(&server, body.clone()).await,
            format!("tool_choice '{name}' is incompatible with thinking enabled")
        );
        let mut instant = body;
        instant["thinking"] = json!({"type": "disabled"});
        assert_eq!(server.chat(&hello_with(instant)).await.0, 200);
    }
    let ignored =
        hello_with(json!({"thinking_budget": 5, "min_tokens": 5, "structured_outputs": {"regex": "a"}}));
    let response = server.post(&ignored).send().await.unwrap();
    assert_eq!(
        response.headers()["x-kimi-notice"],
        "ignored thinking_budget; ignored min_tokens; ignored structured_outputs"
    );
}
