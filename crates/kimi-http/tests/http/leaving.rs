//! Clients that leave, and a server that stops.

use std::time::Duration;

use futures_util::StreamExt;
use kimi_engine::FakeRunner;
use serde_json::json;

use crate::harness::{Server, Setup, chunks, hello, hello_with, read, saying};

/// A runner that never ends by itself, slowly.
fn endless() -> FakeRunner {
    saying("</think>aaaa").with_step_time(Duration::from_millis(10))
}

#[tokio::test]
async fn leaving_cancels_a_streamed_answer() {
    let server = Setup::new(endless()).serve().await;
    let response = server.post(&hello_with(json!({"stream": true}))).send().await.unwrap();
    let mut body = response.bytes_stream();
    for _ in 0..3 {
        body.next().await.unwrap().unwrap();
    }
    server.wait_for_running(1).await;
    drop(body);
    server.wait_for_running(0).await;
    assert_eq!(server.engine.load().blocks_used, 0);
}

#[tokio::test]
async fn leaving_cancels_a_whole_answer() {
    let server = Setup::new(endless()).serve().await;
    let request = tokio::spawn(server.post(&hello()).send());
    server.wait_for_running(1).await;
    request.abort();
    server.wait_for_running(0).await;
    assert_eq!(server.engine.load().blocks_used, 0);
}

#[tokio::test]
async fn leaving_cancels_an_answer_that_still_waits() {
    let mut setup = Setup::new(endless());
    setup.max_sequences = 1;
    let server = setup.serve().await;
    let first = tokio::spawn(server.post(&hello()).send());
    server.wait_for_running(1).await;
    let second = tokio::spawn(server.post(&hello()).send());
    wait_for_waiting(&server, 1).await;
    second.abort();
    wait_for_waiting(&server, 0).await;
    assert_eq!(server.engine.load().running, 1);
    first.abort();
    server.wait_for_running(0).await;
}

pub(crate) async fn wait_for_waiting(server: &Server, count: usize) {
    for _ in 0..500 {
        if server.engine.load().waiting == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never {count} waiting: {:?}", server.engine.load());
}

#[tokio::test]
async fn many_who_leave_at_any_time_leave_nothing_behind() {
    let mut setup = Setup::new(saying("</think>aaaa").with_step_time(Duration::from_millis(1)));
    setup.max_waiting = 1000;
    let server = setup.serve().await;
    // A thousand, of whom two hundred at a time: a process may have only so many open files.
    for _ in 0..5 {
        let visits = (0..200_u64).map(|visitor| {
            let request = server.post(&hello_with(json!({"stream": visitor % 2 == 0})));
            let stay = Duration::from_millis(visitor * 7 % 90);
            tokio::spawn(async move {
                let answer = async { request.send().await.unwrap().bytes().await };
                tokio::time::timeout(stay, answer).await.expect_err("nobody gets to the end");
            })
        });
        for visit in visits.collect::<Vec<_>>() {
            visit.await.unwrap();
        }
    }
    server.wait_for_running(0).await;
    wait_for_waiting(&server, 0).await;
    assert_eq!(server.engine.load().blocks_used, 0);
}

#[tokio::test]
async fn draining_finishes_what_runs_and_refuses_the_rest() {
    let runner = saying("</think>0123456789<|im_end|>").with_step_time(Duration::from_millis(40));
    let mut server = Setup::new(runner).serve().await;
    let running = tokio::spawn(server.post(&hello()).send());
    server.wait_for_running(1).await;
    server.stop();
    let refused = loop {
        let (status, body) = server.get_json("/health").await;
        if status == 503 {
            assert_eq!(body, json!({"status": "draining", "running": 1}));
            break server.post(&hello()).send().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(refused.headers()["retry-after"], "5");
    let (status, body) = read(refused).await;
    assert_eq!((status, &body["error"]["type"]), (503, &json!("server_unavailable")));

    let (status, answer) = read(running.await.unwrap().unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(answer["choices"][0]["message"]["content"], "0123456789");
    let (client, url) = (server.client.clone(), server.url.clone());
    server.ended().await;
    client.get(format!("{url}/health")).send().await.expect_err("nobody listens any more");
}

#[tokio::test]
async fn draining_ends_what_runs_when_the_grace_is_over() {
    let mut setup = Setup::new(endless());
    setup.grace = Duration::from_millis(100);
    let mut server = setup.serve().await;
    let streamed = server.post(&hello_with(json!({"stream": true}))).send().await.unwrap();
    server.wait_for_running(1).await;
    server.stop();
    let transcript = streamed.text().await.expect("the stream is closed properly");
    assert!(!transcript.contains("[DONE]"));
    assert_eq!(chunks(&transcript).last().unwrap()["error"]["type"], "server_unavailable", "{transcript}");
    server.ended().await;
}
