//! The Responses API: what is asked, what is answered, and what goes wrong, in its own words.

use kimi_http::ApiKeys;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::dialects::{events, listening, streamed_is_whole};
use crate::harness::{Setup, VOCABULARY, extended, hello_with, saying};

const PATH: &str = "/v1/responses";
const CALL: &str = "look</think>OK<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0\
    <|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|><|im_end|>";

fn hello() -> Value {
    json!({"model": "kimi-k2.6", "input": "Hi"})
}

fn with(extra: Value) -> Value {
    extended(hello(), extra)
}

fn tool() -> Value {
    json!({"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": true})
}

#[tokio::test]
async fn a_transcript() {
    let server = Setup::new(saying(CALL)).serve().await;
    let transcript = server.stream(PATH, with(json!({"tools": [tool()]}))).await;
    let events = events(&transcript);
    let names: Vec<&str> = events.iter().map(|(name, _)| name.strip_prefix("response.").unwrap()).collect();
    let mut expected = vec!["created", "in_progress", "output_item.added", "content_part.added"];
    expected.extend(["reasoning_text.delta"; 4]);
    expected.extend(["reasoning_text.done", "content_part.done", "output_item.done"]);
    expected.extend(["output_item.added", "content_part.added", "output_text.delta", "output_text.delta"]);
    expected.extend(["output_text.done", "content_part.done", "output_item.done", "output_item.added"]);
    expected.extend(["function_call_arguments.delta"; 2]);
    expected.extend(["function_call_arguments.done", "output_item.done", "completed"]);
    assert_eq!(names, expected);
    let numbers: Vec<u64> =
        events.iter().map(|(_, data)| data["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    let last = &events.last().unwrap().1["response"];
    assert_eq!((&last["status"], last["output"].as_array().unwrap().len()), (&json!("completed"), 3));
}

#[tokio::test]
async fn a_whole_response() {
    let server = Setup::new(saying(CALL)).serve().await;
    let asked = with(json!({"tools": [tool()], "instructions": "Be brief.", "metadata": {"k": "v"},
        "reasoning": {"effort": "high"}, "store": true, "temperature": 0.5}));
    let (status, answer) = server.post_json(PATH, &asked).await;
    assert_eq!(status, 200, "{answer}");
    let id = answer["id"].as_str().unwrap().strip_prefix("resp_").unwrap();
    assert_eq!(
        answer["output"],
        json!([
            {"type": "reasoning", "id": format!("rs_{id}_0"), "summary": [], "status": "completed",
                "content": [{"type": "reasoning_text", "text": "look"}]},
            {"type": "message", "id": format!("msg_{id}_1"), "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "OK", "annotations": [], "logprobs": []}]},
            {"type": "function_call", "id": format!("fc_{id}_2"), "call_id": "functions.f:0", "name": "f",
                "arguments": "{}", "status": "completed"},
        ])
    );
    for (key, value) in [
        ("object", json!("response")),
        ("status", json!("completed")),
        ("store", json!(false)),
        ("previous_response_id", json!(null)),
        ("error", json!(null)),
        ("incomplete_details", json!(null)),
        ("metadata", json!({"k": "v"})),
        ("tools", json!([tool()])),
        ("tool_choice", json!("auto")),
        ("instructions", json!("Be brief.")),
        ("reasoning", json!({"effort": "high", "summary": null})),
        ("text", json!({"format": {"type": "text"}})),
        ("temperature", json!(0.5)),
        ("top_p", json!(0.95)),
    ] {
        let found = answer[key].as_f64().map_or(answer[key].clone(), |n| json!((n * 1e6).round() / 1e6));
        assert_eq!(found, value, "{key}");
    }
    let usage = &answer["usage"];
    assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], 4);
    let sum = usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], sum);
}

/// The output that a stream's deltas add up to, checked against what the `done` events say.
fn fold(transcript: &str) -> (Vec<Value>, Value) {
    let (mut output, mut end): (Vec<Value>, Value) = (Vec::new(), Value::Null);
    let index = |data: &Value| usize::try_from(data["output_index"].as_u64().unwrap()).unwrap();
    for (number, (name, data)) in events(transcript).into_iter().enumerate() {
        assert_eq!(data["sequence_number"], number);
        assert!(end.is_null(), "nothing comes after the end");
        match name.strip_prefix("response.").unwrap() {
            "created" | "in_progress" => assert_eq!(data["response"]["output"], json!([])),
            "output_item.added" => {
                assert_eq!(index(&data), output.len());
                output.push(data["item"].clone());
            }
            "content_part.added" => output[index(&data)]["content"] = json!([data["part"]]),
            "reasoning_summary_part.added" => output[index(&data)]["summary"] = json!([data["part"]]),
            "output_text.delta" | "reasoning_text.delta" => {
                grow(&mut output[index(&data)]["content"][0]["text"], &data);
            }
            "reasoning_summary_text.delta" => grow(&mut output[index(&data)]["summary"][0]["text"], &data),
            "function_call_arguments.delta" => grow(&mut output[index(&data)]["arguments"], &data),
            "output_text.done" | "reasoning_text.done" => {
                assert_eq!(output[index(&data)]["content"][0]["text"], data["text"]);
            }
            "reasoning_summary_text.done" => {
                assert_eq!(output[index(&data)]["summary"][0]["text"], data["text"]);
            }
            "content_part.done" => assert_eq!(output[index(&data)]["content"][0], data["part"]),
            "reasoning_summary_part.done" => assert_eq!(output[index(&data)]["summary"][0], data["part"]),
            "function_call_arguments.done" => {
                assert_eq!(output[index(&data)]["arguments"], data["arguments"]);
            }
            "output_item.done" => {
                output[index(&data)]["status"] = data["item"]["status"].clone();
                assert_eq!(output[index(&data)], data["item"]);
            }
            "completed" | "incomplete" => end = data["response"].clone(),
            other => panic!("{other}"),
        }
    }
    (output, end)
}

fn grow(text: &mut Value, data: &Value) {
    *text = json!(format!("{}{}", text.as_str().unwrap(), data["delta"].as_str().unwrap()));
}

/// Without what differs between any two answers.
fn anonymous(mut response: Value) -> Value {
    for key in ["id", "created_at"] {
        response.as_object_mut().unwrap().remove(key);
    }
    for item in response["output"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("id");
    }
    response
}

#[test]
fn a_stream_adds_up_to_the_whole_response() {
    for extra in [json!({"tools": [tool()]}), json!({"reasoning": {"summary": "auto"}})] {
        let mut body = with(extra);
        body["max_output_tokens"] = json!(80);
        streamed_is_whole(PATH, &body, |whole, transcript| {
            let (output, end) = fold(transcript);
            prop_assert_eq!(&json!(output), &end["output"]);
            prop_assert_eq!(anonymous(whole.clone()), anonymous(end));
            Ok(())
        });
    }
}

#[tokio::test]
async fn a_tool_loop_with_foreign_ids_and_echoed_thoughts_is_the_chat_loop() {
    let (runner, prompts) = listening("</think>ok<|im_end|>");
    let server = Setup::new(runner).serve().await;
    let thought = |key: &str| json!({"type": "reasoning", "id": "rs_1", "summary": [], key: [{"type": "x", "text": "hm"}]});
    let call = |id: &str| json!({"type": "function_call", "id": "fc_1", "call_id": id, "name": "f", "arguments": "{}"});
    let output =
        |id: &str, output: Value| json!({"type": "function_call_output", "call_id": id, "output": output});
    for thought in [thought("content"), thought("summary")] {
        let input = json!([
            {"role": "developer", "content": "Hurry."},
            {"role": "user", "content": [{"type": "input_text", "text": "Go"}]},
            thought,
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "I will.", "annotations": []}]},
            call("call_a"), call("call_b"),
            output("call_a", json!("one")), output("call_b", json!([{"type": "input_text", "text": "two"}])),
        ]);
        let body = with(json!({"input": input, "instructions": "Be brief.", "tools": [tool()]}));
        let (status, answer) = server.post_json(PATH, &body).await;
        assert_eq!(status, 200, "{answer}");
    }
    let native =
        |k: usize| json!({"id": format!("functions.f:{k}"), "function": {"name": "f", "arguments": "{}"}});
    let mut function = tool();
    function.as_object_mut().unwrap().remove("type");
    let chat = json!({"tools": [{"type": "function", "function": function}], "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Hurry."},
        {"role": "user", "content": "Go"},
        {"role": "assistant", "reasoning_content": "hm", "content": "I will.", "tool_calls": [native(0), native(1)]},
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "one"},
        {"role": "tool", "tool_call_id": "functions.f:1", "content": "two"}]});
    assert_eq!(server.chat(&hello_with(chat)).await.0, 200);
    let prompts: Vec<String> = prompts.lock().unwrap().iter().map(|ids| VOCABULARY.decode(ids)).collect();
    assert_eq!(prompts[0], prompts[2]);
    assert_eq!(prompts[1], prompts[2]);
}

#[tokio::test]
async fn an_own_answer_can_be_echoed_as_it_is() {
    let (runner, prompts) = listening(CALL);
    let server = Setup::new(runner).serve().await;
    let (_, first) = server.post_json(PATH, &with(json!({"tools": [tool()]}))).await;
    let mut input = vec![json!({"role": "user", "content": "Hi"})];
    input.extend(first["output"].as_array().unwrap().iter().cloned());
    input.push(json!({"type": "function_call_output", "call_id": "functions.f:0", "output": ""}));
    let (status, second) = server.post_json(PATH, &with(json!({"tools": [tool()], "input": input}))).await;
    assert_eq!(status, 200, "{second}");
    let prompt = VOCABULARY.decode(&prompts.lock().unwrap()[1]);
    let said = CALL.replace("<|im_end|>", "");
    assert!(prompt.contains(&format!("<think>{said}")), "what the model said is what it is shown: {prompt}");
    assert!(prompt.contains("## Return of functions.f:0\n(no output)"), "{prompt}");
}

#[tokio::test]
async fn limits_and_failures_have_their_own_ends() {
    let server = Setup::new(saying("a</think>one two<|im_end|>")).serve().await;
    let (status, cut) = server.post_json(PATH, &with(json!({"max_output_tokens": 5}))).await;
    assert_eq!((status, &cut["status"]), (200, &json!("incomplete")));
    assert_eq!(cut["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(cut["output"][1]["status"], "incomplete");
    assert_eq!(cut["output"][0]["status"], "completed");

    let runner = saying("</think>Hello<|im_end|>").with_non_finite(0, 3).with_non_finite(1, 3);
    let server = Setup::new(runner).serve().await;
    let transcript = server.stream(PATH, hello()).await;
    let events = events(&transcript);
    let (name, data) = events.last().unwrap();
    assert_eq!((name.as_str(), &data["response"]["status"]), ("response.failed", &json!("failed")));
    assert_eq!(data["response"]["error"]["code"], "server_error");
    let (status, error) = server.post_json(PATH, &hello()).await;
    assert_eq!((status, &error["error"]["type"]), (500, &json!("server_error")));
}

#[tokio::test]
async fn log_probabilities_come_when_they_are_included() {
    let server = Setup::new(saying("</think>Hi<|im_end|>")).serve().await;
    let body = with(json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2}));
    let (_, answer) = server.post_json(PATH, &body).await;
    let logprobs = answer["output"][0]["content"][0]["logprobs"].as_array().unwrap();
    assert_eq!((logprobs.len(), logprobs[0]["top_logprobs"].as_array().unwrap().len()), (2, 2));
    let transcript = server.stream(PATH, body).await;
    let (_, end) = fold_with_logprobs(&transcript);
    assert_eq!(end["output"][0]["content"][0]["logprobs"], json!(logprobs));
}

/// All log probabilities of the deltas, and the last event's response.
fn fold_with_logprobs(transcript: &str) -> (Vec<Value>, Value) {
    let events = events(transcript);
    let deltas = events.iter().filter(|(name, _)| name == "response.output_text.delta");
    let all: Vec<Value> = deltas.flat_map(|(_, data)| data["logprobs"].as_array().unwrap().clone()).collect();
    let end = events.last().unwrap().1["response"].clone();
    assert_eq!(end["output"][0]["content"][0]["logprobs"], json!(all));
    (all, end)
}

#[tokio::test]
async fn mistakes_are_told() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    for (extra, part) in [
        (
            json!({"previous_response_id": "resp_1"}),
            "previous_response_id is not supported: this server stores no",
        ),
        (json!({"conversation": {"id": "c"}}), "conversation is not supported"),
        (json!({"background": true}), "background is not supported"),
        (json!({"input": []}), "messages must not be empty"),
        (json!({"input": 7}), "input: invalid type"),
        (json!({"input": [{"role": "user"}]}), "input[0]: missing field `content`"),
        (json!({"input": [{"type": "item_reference", "id": "x"}]}), "\"item_reference\" is not supported"),
        (json!({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}), "\"input_file\""),
        (
            json!({"input": [{"type": "function_call_output", "call_id": "x", "output": "1"}]}),
            "tool_call_id x not found",
        ),
        (json!({"tools": [{"type": "function"}]}), "tools: missing field `name`"),
        (json!({"tool_choice": {"type": "mcp"}}), "tool_choice: unknown variant `mcp`"),
        (json!({"text": {"format": {"type": "xml"}}}), "text.format"),
        (json!({"reasoning": {"effort": "heroic"}}), "heroic"),
        (json!({"max_output_tokens": 0}), "must be at least 1"),
    ] {
        let (status, error) = server.post_json(PATH, &with(extra)).await;
        assert_eq!((status, &error["error"]["type"]), (400, &json!("invalid_request_error")), "{error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{part}: {message}");
    }
    let (status, error) = server.post_json(PATH, &with(json!({"model": "gpt-4", "background": true}))).await;
    assert_eq!((status, &error["error"]["type"]), (404, &json!("resource_not_found_error")));

    let mut setup = Setup::new(saying("</think>ok<|im_end|>"));
    setup.config.api_keys = ApiKeys::new(["sk-one".to_owned()]);
    let (status, error) = setup.serve().await.post_json(PATH, &hello()).await;
    assert_eq!((status, &error["error"]["type"]), (401, &json!("invalid_authentication_error")));
}

#[tokio::test]
async fn what_has_no_counterpart_is_named_in_a_header() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    let body = with(
        json!({"tools": [{"type": "web_search"}, {"type": "custom", "name": "patch"}], "truncation": "auto",
        "previous_response_id": null, "service_tier": "auto", "text": {"verbosity": "low"}}),
    );
    let response = server.client.post(format!("{}{PATH}", server.url)).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-kimi-notice"], "ignored truncation; ignored tools of other services");
}
