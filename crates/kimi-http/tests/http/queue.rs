//! Requests that wait for their turn.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;

use crate::harness::{Server, Setup, chunks, hello, hello_with, read, saying};
use crate::leaving::wait_for_waiting;

/// A server with one place, and a request in it that does not end.
async fn crowded(configure: impl FnOnce(&mut Setup)) -> (Server, JoinHandle<()>) {
    let mut setup = Setup::new(saying("</think>aaaa").with_step_time(Duration::from_millis(10)));
    setup.max_sequences = 1;
    configure(&mut setup);
    let server = setup.serve().await;
    let request = server.post(&hello()).send();
    let first = tokio::spawn(async move {
        request.await.expect("it is answered, if at all").bytes().await.expect("whole");
    });
    server.wait_for_running(1).await;
    (server, first)
}

#[tokio::test]
async fn a_full_queue_is_429() {
    let (server, first) = crowded(|setup| setup.max_waiting = 0).await;
    let response = server.post(&hello()).send().await.unwrap();
    assert_eq!(
        response.headers()["retry-after"],
        "2",
        "nothing has ended yet that would tell how fast it goes"
    );
    let (status, body) = read(response).await;
    assert_eq!((status, &body["error"]["type"]), (429, &json!("engine_overloaded_error")));
    first.abort();
}

#[tokio::test]
async fn a_request_that_waits_too_long_for_its_turn_is_429() {
    let wait = Duration::from_millis(200);
    let (server, first) = crowded(|setup| setup.config.limits.queue_wait = Some(wait)).await;
    let started = Instant::now();
    let response = server.post(&hello()).send().await.unwrap();
    assert!(started.elapsed() >= wait);
    assert_eq!(response.headers()["retry-after"], "2");
    let (status, body) = read(response).await;
    assert_eq!((status, &body["error"]["type"]), (429, &json!("engine_overloaded_error")));
    assert!(body["error"]["message"].as_str().unwrap().contains("waited"), "{body}");
    // A stream has begun before; it says the same as its last event.
    let transcript = server.transcript(hello()).await;
    assert!(!transcript.contains("[DONE]"));
    assert_eq!(chunks(&transcript).last().unwrap()["error"]["type"], "engine_overloaded_error");
    // The place in the queue is free again, and the first request never had a limit once it ran.
    wait_for_waiting(&server, 0).await;
    assert_eq!(server.engine.load().running, 1);
    assert!(!first.is_finished());
}

#[tokio::test]
async fn without_a_limit_a_request_waits_as_long_as_its_client() {
    let (server, first) = crowded(|_| {}).await;
    let second = server.post(&hello_with(json!({"max_tokens": 3}))).send();
    tokio::time::timeout(Duration::from_millis(300), second).await.expect_err("it waits");
    first.abort();
}
