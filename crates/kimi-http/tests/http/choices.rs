//! Several answers to one request, and the ids of their tokens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kimi_engine::FakeRunner;
use serde_json::{Value, json};

use crate::harness::{Setup, VOCABULARY, chunks, hello_with, saying, tokens};

#[tokio::test]
async fn several_choices_share_a_prompt_and_differ_in_their_seeds() {
    let server = Setup::new(FakeRunner::hashed(256)).serve().await;
    let body =
        |n: u32| hello_with(json!({"n": n, "seed": 5, "max_tokens": 9, "thinking": {"type": "disabled"}}));
    let (_, one) = server.chat(&body(1)).await;
    let (status, three) = server.chat(&body(3)).await;
    assert_eq!(status, 200);
    let choices = three["choices"].as_array().unwrap();
    assert_eq!(choices.iter().map(|choice| &choice["index"]).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(choices[0], one["choices"][0], "the first is what a request for one gets");
    assert_ne!(choices[0]["message"], choices[1]["message"]);
    assert_ne!(choices[1]["message"], choices[2]["message"]);
    assert_eq!(three["usage"]["prompt_tokens"], one["usage"]["prompt_tokens"], "the prompt counts once");
    assert_eq!(three["usage"]["completion_tokens"], 27);
    let total = one["usage"]["prompt_tokens"].as_u64().unwrap() + 27;
    assert_eq!(three["usage"]["total_tokens"], total);
    assert_eq!(server.chat(&body(3)).await.1["choices"], three["choices"], "a seed makes all of them repeat");
}

#[tokio::test]
async fn streamed_choices_come_interleaved() {
    let runner = saying("</think>abcdef<|im_end|>").with_step_time(Duration::from_millis(5));
    let server = Setup::new(runner).serve().await;
    let chunks = chunks(&server.transcript(hello_with(json!({"n": 2}))).await);
    let order: Vec<u64> = chunks.iter().map(|chunk| chunk["choices"][0]["index"].as_u64().unwrap()).collect();
    let last_of_first = order.iter().rposition(|index| *index == 0).unwrap();
    let first_of_second = 2 + order[2..].iter().position(|index| *index == 1).unwrap();
    assert!(first_of_second < last_of_first, "the second does not wait for the first: {order:?}");
    let ends: Vec<&Value> =
        chunks.iter().filter(|chunk| !chunk["choices"][0]["finish_reason"].is_null()).collect();
    assert_eq!(ends.len(), 2);
    assert_eq!(ends[0]["choices"][0]["usage"]["completion_tokens"], 8, "each end says what its choice cost");
}

#[tokio::test]
async fn leaving_cancels_every_choice() {
    let server = Setup::new(saying("</think>aaaa").with_step_time(Duration::from_millis(10))).serve().await;
    for stream in [false, true] {
        let request = tokio::spawn(server.post(&hello_with(json!({"n": 4, "stream": stream}))).send());
        server.wait_for_running(4).await;
        request.abort();
        drop(request.await);
        server.wait_for_running(0).await;
        assert_eq!(server.engine.load().blocks_used, 0);
    }
}

#[tokio::test]
async fn one_failed_choice_fails_the_answer_and_ends_the_others() {
    let runner = saying("</think>aaaa").with_step_time(Duration::from_millis(2)).with_non_finite(1, 3);
    let server = Setup::new(runner).serve().await;
    let transcript = server.transcript(hello_with(json!({"n": 3}))).await;
    assert!(!transcript.contains("[DONE]"));
    assert_eq!(chunks(&transcript).last().unwrap()["error"]["type"], "server_error");
    server.wait_for_running(0).await;
}

#[tokio::test]
async fn an_engine_without_room_for_all_choices_refuses_the_request() {
    // Slow enough that no choice ends before the last one is asked for.
    let mut setup = Setup::new(saying("</think>ok<|im_end|>").with_step_time(Duration::from_millis(50)));
    (setup.max_sequences, setup.max_waiting) = (2, 1);
    let server = setup.serve().await;
    let (status, body) = server.chat(&hello_with(json!({"n": 4}))).await;
    assert_eq!((status, &body["error"]["type"]), (429, &json!("engine_overloaded_error")));
    // The places that were taken are free again as soon as the engine has looked.
    for _ in 0..500 {
        if server.chat(&hello_with(json!({"n": 3}))).await.0 == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a refused request holds places");
}

#[tokio::test]
async fn token_ids_are_those_of_the_engine() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let recorder = Arc::clone(&seen);
    let said = "h</think>Hé<|im_end|>";
    let runner = FakeRunner::answering(move |sequence| {
        recorder.lock().unwrap().push(sequence.prompt.to_vec());
        tokens(said)
    });
    let server = Setup::new(runner).serve().await;
    let (_, answer) = server.chat(&hello_with(json!({"return_token_ids": true, "n": 2}))).await;
    let prompt = seen.lock().unwrap().pop().unwrap();
    assert_eq!(answer["prompt_token_ids"], json!(prompt));
    assert_eq!(prompt.first(), VOCABULARY.special("<|im_user|>").as_ref());
    for choice in answer["choices"].as_array().unwrap() {
        assert_eq!(choice["token_ids"], json!(tokens(said)), "markers and the end token included");
    }
    let chunks = chunks(&server.transcript(hello_with(json!({"return_token_ids": true}))).await);
    assert_eq!(chunks[0]["prompt_token_ids"], json!(prompt));
    assert!(chunks[1..].iter().all(|chunk| chunk.get("prompt_token_ids").is_none()), "once");
    let (_, plain) = server.chat(&hello_with(json!({}))).await;
    assert!(plain.get("prompt_token_ids").is_none() && plain["choices"][0].get("token_ids").is_none());
}

#[tokio::test]
async fn the_stop_that_ended_an_answer_may_be_part_of_it() {
    let server = Setup::new(saying("</think>one two<|im_end|>")).serve().await;
    let content = async |extra: Value| {
        let (status, answer) = server.chat(&hello_with(extra)).await;
        assert_eq!((status, &answer["choices"][0]["finish_reason"]), (200, &json!("stop")));
        answer["choices"][0]["message"]["content"].clone()
    };
    let space = u32::from(b' ');
    assert_eq!(content(json!({"stop": "e t"})).await, "on");
    assert_eq!(content(json!({"stop": "e t", "include_stop_str_in_output": true})).await, "one t");
    assert_eq!(content(json!({"stop_token_ids": [space], "include_stop_str_in_output": true})).await, "one ");
    // A marker is never text.
    assert_eq!(content(json!({"include_stop_str_in_output": true})).await, "one two");
}
