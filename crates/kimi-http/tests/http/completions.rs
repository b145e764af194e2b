//! `/v1/completions`: prompts as they are, answers as plain text.

use std::sync::{Arc, Mutex};

use kimi_engine::FakeRunner;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::harness::{Server, Setup, VOCABULARY, chunks, extended, saying, tokens};

fn prompt(prompt: impl Into<Value>, extra: Value) -> Value {
    extended(json!({"model": "kimi-k2.6", "prompt": prompt.into()}), extra)
}

async fn complete(server: &Server, body: &Value) -> (u16, Value) {
    server.post_json("/v1/completions", body).await
}

/// The chunks of a streamed answer.
async fn stream(server: &Server, mut body: Value) -> Vec<Value> {
    body["stream"] = json!(true);
    let url = format!("{}/v1/completions", server.url);
    let response = server.client.post(url).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let transcript = response.text().await.unwrap();
    assert!(transcript.ends_with("data: [DONE]\n\n"), "{transcript}");
    chunks(&transcript)
}

#[tokio::test]
async fn an_answer() {
    let server = Setup::new(saying("hmm</think>Hé<|im_end|>")).serve().await;
    let (status, answer) = complete(&server, &prompt("Hi", json!({}))).await;
    assert_eq!(status, 200);
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!((&answer["object"], &answer["model"]), (&json!("text_completion"), &json!("kimi-k2.6")));
    let choice = json!({"index": 0, "text": "hmmHé", "logprobs": null, "finish_reason": "stop"});
    assert_eq!(answer["choices"], json!([choice]), "special tokens are no text");
    assert_eq!(answer["usage"]["prompt_tokens"], 2);
    assert_eq!(answer["usage"]["completion_tokens"], 8);
    let (_, shown) = complete(&server, &prompt("Hi", json!({"skip_special_tokens": false}))).await;
    assert_eq!(shown["choices"][0]["text"], "hmm</think>Hé");
    let all = json!({"skip_special_tokens": false, "include_stop_str_in_output": true});
    assert_eq!(
        complete(&server, &prompt("Hi", all)).await.1["choices"][0]["text"],
        "hmm</think>Hé<|im_end|>"
    );
    let (_, cut) = complete(&Setup::new(saying("endless")).serve().await, &prompt("Hi", json!({}))).await;
    assert_eq!(cut["usage"]["completion_tokens"], 16, "the route's old default");
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn prompts_come_as_text_or_ids_one_or_several() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let recorder = Arc::clone(&seen);
    let runner = FakeRunner::answering(move |sequence| {
        recorder.lock().unwrap().push(sequence.prompt.to_vec());
        // Answers with the prompt's last token, so that mixed-up choices would show.
        vec![*sequence.prompt.last().unwrap(), VOCABULARY.special("<|im_end|>").unwrap()]
    });
    let server = Setup::new(runner).serve().await;
    let user = VOCABULARY.special("<|im_user|>").unwrap();
    for (given, prompts) in [
        (json!("ab"), vec![vec![97, 98]]),
        (json!(["ab", "c"]), vec![vec![97, 98], vec![99]]),
        (json!([97, 98]), vec![vec![97, 98]]),
        (json!([[97, 98], [99]]), vec![vec![97, 98], vec![99]]),
        (json!("<|im_user|>x"), vec![vec![user, 120]]),
    ] {
        let (status, answer) = complete(&server, &prompt(given.clone(), json!({"n": 2}))).await;
        assert_eq!(status, 200, "{given}: {answer}");
        let twice: Vec<Vec<u32>> =
            prompts.iter().flat_map(|prompt| [prompt.clone(), prompt.clone()]).collect();
        assert_eq!(*seen.lock().unwrap(), twice, "{given}");
        seen.lock().unwrap().clear();
        let texts: Vec<Value> =
            answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].clone()).collect();
        let expected: Vec<String> =
            twice.iter().map(|prompt| VOCABULARY.decode(&prompt[prompt.len() - 1..])).collect();
        assert_eq!(json!(texts), json!(expected), "the choices of the first prompt come first");
        let tokens: usize = prompts.iter().map(Vec::len).sum();
        assert_eq!(answer["usage"]["prompt_tokens"], tokens, "every prompt counts once");
        assert_eq!(answer["usage"]["completion_tokens"], 4 * prompts.len());
    }
    let plain = prompt("<|im_user|>x", json!({"parse_special": false, "return_token_ids": true}));
    let (_, answer) = complete(&server, &plain).await;
    assert_eq!(answer["choices"][0]["prompt_token_ids"], json!(VOCABULARY.encode_text("<|im_user|>x")));
    assert_eq!(answer["choices"][0]["token_ids"], json!([120, VOCABULARY.special("<|im_end|>").unwrap()]));
}

#[tokio::test]
async fn echo_and_log_probabilities() {
    let server = Setup::new(saying("Hé!<|im_end|>")).serve().await;
    let (_, answer) = complete(&server, &prompt(json!([98, 99]), json!({"echo": true}))).await;
    assert_eq!(answer["choices"][0]["text"], "bcHé!");
    let (_, answer) = complete(&server, &prompt("a", json!({"logprobs": 2}))).await;
    let lossy = "\u{FFFD}";
    assert_eq!(
        answer["choices"][0]["logprobs"],
        json!({"tokens": ["H", lossy, lossy, "!"], "token_logprobs": [-0.25, -0.25, -0.25, -0.25],
            "top_logprobs": [{"H": -0.25, "\0": -1.25}, {lossy: -0.25, "\0": -1.25}, {lossy: -0.25, "\0": -1.25},
                {"!": -0.25, "\0": -1.25}],
            "text_offset": [0, 1, 2, 2]})
    );
    let (_, answer) = complete(&server, &prompt("a", json!({"logprobs": 0}))).await;
    assert_eq!(answer["choices"][0]["logprobs"]["top_logprobs"][0], json!({"H": -0.25}));

    // What harnesses ask that compare continuations: the log probabilities of the prompt itself.
    for repetition in 0..2 {
        let scored =
            prompt(json!(["é<|im_user|>b", [99]]), json!({"echo": true, "logprobs": 1, "max_tokens": 1}));
        let (_, answer) = complete(&server, &scored).await;
        assert_eq!(
            answer["choices"][0]["logprobs"],
            json!({"tokens": [lossy, lossy, "<|im_user|>", "b", "H"],
                "token_logprobs": [null, -0.25, -0.25, -0.25, -0.25],
                "top_logprobs": [null, {lossy: -0.25}, {"<|im_user|>": -0.25}, {"b": -0.25}, {"H": -0.25}],
                "text_offset": [0, 1, 1, 12, 13]}),
            "time {repetition}"
        );
        assert_eq!(answer["choices"][0]["text"], "é<|im_user|>bH");
        assert_eq!(answer["choices"][1]["logprobs"]["token_logprobs"], json!([null, -0.25]));
        assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0, "all is computed");
    }
    let (_, answer) = complete(
        &server,
        &prompt("ab", json!({"echo": true, "logprobs": 0, "max_tokens": 0, "return_token_ids": true})),
    )
    .await;
    let choice = &answer["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("ab"), &json!("length")));
    assert_eq!(choice["logprobs"]["tokens"], json!(["a", "b"]));
    assert_eq!(answer["usage"]["completion_tokens"], 0);
}

#[tokio::test]
async fn refusals() {
    let server = Setup::new(saying("ok<|im_end|>")).serve().await;
    let vocabulary = VOCABULARY.len();
    for (body, message) in [
        (
            prompt("a", json!({"suffix": "b"})),
            "Invalid request: suffix is not supported: this model was not trained to fill gaps".to_owned(),
        ),
        (
            prompt("a", json!({"best_of": 2})),
            "Invalid request: best_of is not supported beyond n; use n".to_owned(),
        ),
        (prompt("", json!({})), "Invalid request: the prompt must not be empty".to_owned()),
        (prompt(json!([]), json!({})), "Invalid request: the prompt must not be empty".to_owned()),
        (prompt(json!([[]]), json!({})), "Invalid request: the prompt must not be empty".to_owned()),
        (
            prompt(json!([999_999]), json!({})),
            format!(
                "Invalid request: prompt has the token id 999999; this model's ids are below {vocabulary}"
            ),
        ),
        (
            prompt("a", json!({"logprobs": 21})),
            "Invalid request: logprobs must be from 0 to 20, not 21".to_owned(),
        ),
        (prompt("a", json!({"n": 9})), "Invalid request: n must be from 1 to 8, not 9".to_owned()),
        (
            prompt("a", json!({"max_tokens": 0})),
            "Invalid request: max_tokens must be at least 1, not 0".to_owned(),
        ),
        (
            prompt(vec!["a"; 17], json!({"n": 8})),
            "Invalid request: prompt and n ask for 136 answers; at most 128 can be given to one request"
                .to_owned(),
        ),
    ] {
        let (status, answer) = complete(&server, &body).await;
        assert_eq!((status, &answer["error"]["message"]), (400, &json!(message)), "{body}");
    }
    for wrong in [
        json!(7),
        json!(null),
        json!({}),
        json!([-1]),
        json!(["a", 1]),
        json!([1, "a"]),
        json!([["a"]]),
        json!([1.5]),
    ] {
        let (status, answer) = complete(&server, &prompt(wrong.clone(), json!({}))).await;
        assert_eq!(status, 400, "{wrong}");
        assert!(
            answer["error"]["message"].as_str().unwrap().starts_with("Invalid request: prompt"),
            "{answer}"
        );
    }
    let mut unknown = prompt("a", json!({}));
    unknown["model"] = json!("gpt-4");
    assert_eq!(complete(&server, &unknown).await.0, 404);
    let long = prompt("x".repeat(5000), json!({}));
    assert_eq!(complete(&server, &long).await.1["error"]["code"], "context_length_exceeded");
}

/// What the chunks of a stream add up to.
fn fold(chunks: &[Value]) -> Vec<Value> {
    let choices = || chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
    let count = choices().map(|choice| choice["index"].as_u64().unwrap()).max().unwrap() + 1;
    let sum = |index| {
        let mut sum = json!({"index": index, "text": "", "logprobs": null, "finish_reason": null});
        for choice in choices().filter(|choice| choice["index"] == index) {
            sum["text"] = json!(sum["text"].as_str().unwrap().to_owned() + choice["text"].as_str().unwrap());
            for (key, value) in choice["logprobs"].as_object().into_iter().flatten() {
                let mut list = sum["logprobs"][key].as_array().cloned().unwrap_or_default();
                list.extend(value.as_array().unwrap().iter().cloned());
                sum["logprobs"][key] = json!(list);
            }
            for key in ["token_ids", "prompt_token_ids"] {
                if let Some(ids) = choice.get(key) {
                    let mut list = sum[key].as_array().cloned().unwrap_or_default();
                    list.extend(ids.as_array().unwrap().iter().cloned());
                    sum[key] = json!(list);
                }
            }
            if !choice["finish_reason"].is_null() {
                sum["finish_reason"] = choice["finish_reason"].clone();
            }
        }
        sum
    };
    (0..count).map(sum).collect()
}

#[test]
fn a_stream_adds_up_to_the_whole_answer() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = runtime.block_on(Setup::new(FakeRunner::hashed(269)).serve());
    let flags = proptest::array::uniform5(proptest::bool::ANY);
    let prompts = prop_oneof![
        Just(json!("ab")),
        Just(json!(["é", "<|im_user|>"])),
        Just(json!([[97], tokens("x<think>")])),
    ];
    let shapes =
        (any::<i64>(), prompts, 1..=3, 1..80, flags).prop_map(|(seed, prompts, n, max_tokens, flags)| {
            let [echo, ids, logprobs, show, include_stop] = flags;
            prompt(
                prompts,
                json!({"seed": seed, "n": n, "max_tokens": max_tokens, "echo": echo, "return_token_ids": ids,
            "logprobs": logprobs.then_some(2), "skip_special_tokens": !show, "stop": ["ab", "e"],
            "ignore_eos": seed % 2 == 0, "include_stop_str_in_output": include_stop,
            "stream_options": {"include_usage": true}}),
            )
        });
    let outcome =
        TestRunner::new(ProptestConfig { cases: 80, ..ProptestConfig::default() }).run(&shapes, |body| {
            let (status, whole) = runtime.block_on(complete(&server, &body));
            prop_assert_eq!(status, 200, "{}", whole);
            let chunks = runtime.block_on(stream(&server, body));
            prop_assert_eq!(&json!(fold(&chunks)), &whole["choices"]);
            prop_assert_eq!(&chunks.last().unwrap()["usage"], &whole["usage"]);
            Ok(())
        });
    outcome.unwrap();
}
