//! Clients that mean harm or are broken: slow, silent, greedy, foreign.

use std::time::{Duration, Instant};

use kimi_engine::FakeRunner;
use kimi_http::{AllowedHosts, ApiKeys};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Server, Setup, hello, hello_with, read, saying, tokens};

const SHORT: Duration = Duration::from_millis(200);
/// Longer than every short limit, much shorter than every normal one.
const SOON: Duration = Duration::from_secs(5);

fn ok() -> Setup {
    Setup::new(saying("</think>ok<|im_end|>"))
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// What the server sends until it closes the connection, and how long that took.
async fn until_closed(connection: &mut TcpStream) -> (String, Duration) {
    let started = Instant::now();
    let mut said = Vec::new();
    let closed = tokio::time::timeout(SOON, connection.read_to_end(&mut said)).await;
    // A reset is an end, too.
    let _ = closed.expect("the server closes the connection");
    (String::from_utf8_lossy(&said).into_owned(), started.elapsed())
}

/// Sends `request` and reads the answer's head and as much of its body as comes at once.
async fn exchange(connection: &mut TcpStream, request: &str) -> String {
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let count = tokio::time::timeout(SOON, connection.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[tokio::test]
async fn a_head_must_arrive_in_time() {
    let mut setup = ok();
    setup.config.limits.head_within = SHORT;
    let server = setup.serve().await;
    // Nothing at all, and a head that comes byte by byte.
    let mut silent = connect(&server).await;
    let (said, took) = until_closed(&mut silent).await;
    assert!(said.is_empty() && took >= SHORT / 2, "{said} after {took:?}");
    let (mut reader, mut writer) = connect(&server).await.into_split();
    let drip = tokio::spawn(async move {
        for byte in HEALTH.bytes().chain(std::iter::repeat(b'a')) {
            if writer.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    let mut said = Vec::new();
    let _ = tokio::time::timeout(SOON, reader.read_to_end(&mut said)).await.expect("closed");
    assert!(said.is_empty(), "the head took too long to be answered");
    drip.abort();
}

#[tokio::test]
async fn silence_between_requests_has_a_longer_limit_than_a_head() {
    let mut setup = ok();
    (setup.config.limits.head_within, setup.config.limits.idle_for) = (SHORT, 4 * SHORT);
    let server = setup.serve().await;
    let mut connection = connect(&server).await;
    for _ in 0..3 {
        assert!(exchange(&mut connection, HEALTH).await.starts_with("HTTP/1.1 200"));
        tokio::time::sleep(2 * SHORT).await;
    }
    let (said, took) = until_closed(&mut connection).await;
    assert!(said.is_empty() && took < 4 * SHORT, "{said} after {took:?}");
    // The second head on a connection has the short limit again.
    let mut connection = connect(&server).await;
    exchange(&mut connection, HEALTH).await;
    connection.write_all(b"GET /hea").await.unwrap();
    let (_, took) = until_closed(&mut connection).await;
    assert!(took < 3 * SHORT, "{took:?}");
}

#[tokio::test]
async fn a_long_answer_is_not_silence() {
    let mut setup = Setup::new(saying("</think>abcdefgh<|im_end|>").with_step_time(SHORT / 2));
    (setup.config.limits.head_within, setup.config.limits.idle_for) = (SHORT, SHORT);
    let server = setup.serve().await;
    assert_eq!(server.chat(&hello()).await.0, 200);
    assert!(server.transcript(hello()).await.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_body_must_keep_coming() {
    let mut setup = ok();
    setup.config.limits.body_stall = SHORT;
    let server = setup.serve().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n";
    let mut stalled = connect(&server).await;
    let answer = exchange(&mut stalled, &format!("{head}{{")).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("too slowly"), "{answer}");
    // A few bytes now and then are not progress.
    let (mut reader, mut writer) = connect(&server).await.into_split();
    let drip = tokio::spawn(async move {
        writer.write_all(head.as_bytes()).await.unwrap();
        while writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    let mut answer = [0; 12];
    tokio::time::timeout(SOON, reader.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    drip.abort();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let mut setup = Setup::new(FakeRunner::scripted(vec![tokens("</think>aaaa")]));
    setup.config.limits.write_stall = SHORT;
    setup.max_context = 1 << 18;
    let server = setup.serve().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = server.url.strip_prefix("http://").unwrap().parse().unwrap();
    let mut connection = socket.connect(address).await.unwrap();
    let body = hello_with(json!({"stream": true, "max_tokens": 200_000})).to_string();
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.write_all((head + &body).as_bytes()).await.unwrap();
    server.wait_for_running(1).await;
    // Others are served all the while: the engine waits for nobody.
    assert_eq!(server.chat(&hello_with(json!({"max_tokens": 3}))).await.0, 200);
    server.wait_for_running(0).await;
    assert_eq!(server.engine.load().blocks_used, 0);
    drop(connection);
}

#[tokio::test]
async fn connections_are_counted() {
    let mut setup = ok();
    setup.config.limits.connections = 2;
    let server = setup.serve().await;
    let mut first = connect(&server).await;
    let mut second = connect(&server).await;
    assert!(exchange(&mut first, HEALTH).await.starts_with("HTTP/1.1 200"));
    assert!(exchange(&mut second, HEALTH).await.starts_with("HTTP/1.1 200"));
    let mut third = connect(&server).await;
    let answer = exchange(&mut third, HEALTH).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("server_unavailable"), "{answer}");
    assert!(answer.contains("retry-after: "));
    drop(first);
    // A place is free as soon as a connection has ended.
    for _ in 0..100 {
        let mut fourth = connect(&server).await;
        if exchange(&mut fourth, HEALTH).await.starts_with("HTTP/1.1 200") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place was never free again");
}

#[tokio::test]
async fn heads_and_urls_have_limits() {
    let server = ok().serve().await;
    let long = |bytes: usize| format!("/v1/models?{}", "a".repeat(bytes));
    assert_eq!(server.get_json(&long(8000)).await.0, 200);
    let (status, body) = server.get_json(&long(8200)).await;
    assert_eq!((status, &body["error"]["type"]), (414, &json!("invalid_request_error")));
    let mut connection = connect(&server).await;
    let huge = format!("GET /health HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(100_000));
    let answer = exchange(&mut connection, &huge).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn nesting_and_counts_have_limits() {
    let server = ok().serve().await;
    let ask = async |body: String| {
        let request = server.client.post(format!("{}/v1/chat/completions", server.url)).body(body);
        let (status, body) = read(request.send().await.unwrap()).await;
        (status, body["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    let nested = |depth: usize| {
        let deep = "[".repeat(depth) + &"]".repeat(depth);
        format!(
            r#"{{"model": "kimi-k2.6", "messages": [{{"role": "user", "content": "Hi"}}], "unknown": {deep}}}"#
        )
    };
    assert_eq!(ask(nested(63)).await.0, 200);
    for depth in [64, 1000, 1_000_000] {
        let (status, message) = ask(nested(depth)).await;
        assert_eq!((status, message.contains("64 levels")), (400, true), "{message}");
    }
    let messages = vec![json!({"role": "user", "content": "a"}); 16_385];
    let (status, message) = ask(json!({"model": "kimi-k2.6", "messages": messages}).to_string()).await;
    assert_eq!((status, message.contains("at most 16384")), (400, true), "{message}");
    let parts = vec![json!({"type": "text", "text": "a"}); 1025];
    let body = json!({"model": "kimi-k2.6", "messages": [{"role": "user", "content": parts}]});
    let (status, message) = ask(body.to_string()).await;
    assert_eq!((status, message.contains("messages[0].content")), (400, true), "{message}");
}

#[tokio::test]
async fn web_pages_do_not_reach_a_server_without_keys() {
    let mut setup = ok();
    setup.config.allowed_hosts = AllowedHosts::Loopback { and: vec!["kimi.lan".into()] };
    let server = setup.serve().await;
    let ask = async |host: &str, origin: Option<&str>| {
        let request = server.post(&hello()).header("host", host);
        let request = if let Some(origin) = origin { request.header("origin", origin) } else { request };
        let (status, body) = read(request.send().await.unwrap()).await;
        if status == 403 {
            assert_eq!(body["error"]["type"], "permission_denied_error");
            assert!(body["error"]["message"].as_str().unwrap().contains("--api-key-file"));
        }
        status
    };
    for host in ["localhost:8000", "127.0.0.1", "[::1]:8000", "kimi.lan:80"] {
        assert_eq!(ask(host, None).await, 200, "{host}");
        assert_eq!(ask(host, Some("http://localhost:3000")).await, 200);
        assert_eq!(ask(host, Some("chrome-extension://abcdef")).await, 200);
        for origin in ["https://evil.example", "http://127.0.0.1.evil.example", "null"] {
            assert_eq!(ask(host, Some(origin)).await, 403, "{origin}");
        }
    }
    for host in ["evil.example", "evil.example:8000", "localhost.evil.example", "a@b"] {
        assert_eq!(ask(host, None).await, 403, "{host}");
    }
}

#[tokio::test]
async fn metrics_are_open_when_the_operator_says_so() {
    let mut setup = ok();
    setup.config.api_keys = ApiKeys::new(["sk-a".to_owned()]).with_open_metrics(true);
    setup.config.render_metrics = Some(std::sync::Arc::new(|| "kimi_up 1\n".to_owned()));
    let server = setup.serve().await;
    assert_eq!(server.get("/metrics").await.status(), 200);
    assert_eq!(server.get("/v1/models").await.status(), 401);
}

#[tokio::test]
async fn the_playground_is_a_page_that_loads_nothing_and_needs_no_key() {
    let mut setup = ok();
    setup.config.api_keys = ApiKeys::new(["sk-a".to_owned()]);
    let server = setup.serve().await;
    let response = server.get("/").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(
        policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(response.text().await.unwrap().starts_with("<!doctype html>"));
}
