//! What operators rely on: counters and log lines for what goes wrong, an orderly end, and silence towards the network.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    fake::{play, play_with},
    harness::{Server, command, root, with},
};

const SECTION: &str = "<|tool_calls_section_begin|>";

fn body(text: &str, stream: bool) -> Value {
    json!({"model": "kimi-k2.6", "messages": [{"role": "user", "content": text}], "stream": stream})
}

async fn ask(server: &Server, body: &Value) -> (u16, String) {
    let answer = server.post("/chat/completions", body).send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("all of it"))
}

#[tokio::test]
async fn what_goes_wrong_is_counted_and_logged() {
    let server = play(&json!([
        {"match": "empty", "text": "Hm.</think><|im_end|>"},
        {"match": "cut", "reasoning": "Hm.", "content": "Yes."},
        {"match": "broken", "text": format!("</think>{SECTION}<|tool_call_begin|>?<|tool_calls_section_end|><|im_end|>")},
        {"match": "sick", "content": "a b c d e f", "fail": {"after": 3, "kind": "non_finite"}},
        {"match": "result", "content": "Done."},
    ]));
    let counters = async || {
        let mut counts = Vec::new();
        for name in ["empty_answers", "tool_parse_errors", "non_finite_logits"] {
            counts.push(server.metric_if_any(&format!("kimi_{name}_total")).await.unwrap_or_default() as u64);
        }
        counts
    };
    assert_eq!(counters().await, [0; 3]);
    // An answer that the limit ended in its reasoning is not an empty one.
    assert_eq!(ask(&server, &with(body("cut", false), &json!({"max_tokens": 1}))).await.0, 200);
    assert_eq!(counters().await, [0; 3]);
    for (text, status, counts) in
        [("empty", 200, [1, 0, 0]), ("broken", 200, [1, 1, 0]), ("sick", 500, [1, 1, 1])]
    {
        assert_eq!(ask(&server, &body(text, false)).await.0, status, "{text}");
        assert_eq!(counters().await, counts, "{text}");
    }

    let call = json!({"id": "f:0", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let forgetful = json!({"model": "kimi-k2.6", "messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "f:0", "content": "result"},
    ]});
    assert_eq!(ask(&server, &forgetful).await.0, 200);
    let log = server.kill();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("reasoning_content")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("WARN") && warnings[0].contains("index=1"), "{}", warnings[0]);
}

#[tokio::test]
async fn a_longer_context_than_was_validated_is_asked_for_by_name() {
    let generation = fs::read(root().join("models/kimi-nano/generation_config.json")).unwrap();
    let generation: Value = serde_json::from_slice(&generation).unwrap();
    let validated = generation["max_length"].as_u64().unwrap();
    for (arguments, context, level) in [
        (&[][..], validated, "INFO"),
        (&["--max-context", "2000"], 2000, "INFO"),
        (&["--max-context", "8192"], 8192, "WARN"),
    ] {
        let server = Server::start(arguments);
        let models = reqwest::get(format!("{}/models", server.url)).await.unwrap();
        let models: Value = models.json().await.unwrap();
        assert_eq!(models["data"][0]["context_length"], context);
        let log = server.kill();
        let line = log.lines().find(|line| line.contains("was validated for")).unwrap();
        assert!(line.contains(level) && line.contains(&validated.to_string()), "{line}");
    }
}

fn terminate(server: &Server) {
    let id = server.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill is everywhere").success());
}

#[tokio::test]
async fn sigterm_lets_answers_end_and_cuts_off_those_that_do_not() {
    let script = json!({"token_ms": 50, "turns": [
        {"match": "short", "content": "a ".repeat(40)},
        {"match": "endless", "text": "</think>ab", "endless": true},
    ]});
    for (text, grace, last) in [("short", "30", "[DONE]"), ("endless", "1", "server_unavailable")] {
        let server = play_with(&script, &["--grace", grace]);
        let running = server.post("/chat/completions", &body(text, true)).send().await.unwrap();
        let started = Instant::now();
        terminate(&server);
        // The signal may arrive after a request or two.
        let probe = with(body("short", false), &json!({"max_tokens": 1}));
        let (status, answer) = loop {
            let (status, answer) = ask(&server, &probe).await;
            if status != 200 {
                break (status, answer);
            }
        };
        assert_eq!((status, answer.contains("server_unavailable")), (503, true), "{answer}");
        let said = running.text().await.expect("a proper end");
        assert!(said.contains(last) && (last == "[DONE]") == said.contains("[DONE]"), "{text}: {said}");
        let mut server = server;
        let ended = tokio::task::spawn_blocking(move || server.process.wait()).await.unwrap().unwrap();
        assert!(
            ended.success() && started.elapsed() < Duration::from_secs(20),
            "{ended} {:?}",
            started.elapsed()
        );
    }
}

/// A host that counts who connects and says nothing.
fn listener() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let visits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&visits);
    std::thread::spawn(move || {
        for visit in listener.incoming() {
            counter.fetch_add(1, Ordering::Relaxed);
            drop(visit);
        }
    });
    (url, visits)
}

/// kimi-nano as `org/nano` in the cache of the Hugging Face programs.
fn cached_repository(home: &Path) {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let repository = home.join("hub/models--org--nano");
    let snapshot = repository.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    for file in fs::read_dir(root().join("models/kimi-nano")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), snapshot.join(file.file_name())).unwrap();
    }
}

/// Sockets of the process that are not its listener nor accepted by it, as the kernel tells them.
#[cfg(target_os = "linux")]
fn other_sockets(process: u32, port: u16) -> Vec<String> {
    let owned: Vec<String> = fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|file| Some(fs::read_link(file.ok()?.path()).ok()?.to_str()?.to_owned()))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut others = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let table = fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
        // Number, local address, remote address, state, …; the tenth is the inode.
        let mine = table.lines().filter(|line| {
            line.split_whitespace().nth(9).is_some_and(|inode| owned.iter().any(|own| own == inode))
        });
        let local = format!(":{port:04X}");
        others.extend(
            mine.filter(|line| !line.split_whitespace().nth(1).unwrap().ends_with(&local)).map(str::to_owned),
        );
    }
    others
}

#[tokio::test]
async fn offline_nothing_connects_to_anywhere() {
    let (home, (url, visits)) = (tempfile::tempdir().unwrap(), listener());
    let environment =
        ["HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
            .map(|name| (name, url.as_str()));
    let environment =
        [&environment[..], &[("HF_HOME", home.path().to_str().unwrap()), ("NO_PROXY", ""), ("no_proxy", "")]]
            .concat();
    let generate = |model: &str, more: &[&str]| {
        let arguments =
            [&["generate", "--model", model, "--no-thinking", "--max-tokens", "2"], more, &["Hi"]].concat();
        let output = command(&arguments).envs(environment.iter().copied()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap(), visits.load(Ordering::Relaxed))
    };
    let (_, _, heard) = generate("org/missing", &[]);
    assert!(heard > 0, "the listener hears those who are not offline");
    visits.store(0, Ordering::Relaxed);
    let (success, said, heard) = generate("org/missing", &["--offline"]);
    assert_eq!((success, said.contains("pull org/missing"), heard), (false, true, 0), "{said}");
    cached_repository(home.path());
    let (success, said, heard) = generate("org/nano", &["--offline"]);
    assert_eq!((success, heard), (true, 0), "{said}");

    let server = Server::start_in(&environment, &["--offline", "--model", "org/nano"]);
    let image = json!([{"type": "image_url", "image_url": {"url": format!("{url}/a.png")}}]);
    let looking = with(body("", false), &json!({"messages": [{"role": "user", "content": image}]}));
    assert_eq!(ask(&server, &looking).await.0, 400);
    let short = with(body("Hi", false), &json!({"max_tokens": 2}));
    assert_eq!(ask(&server, &short).await.0, 200);
    assert_eq!(visits.load(Ordering::Relaxed), 0);
    #[cfg(target_os = "linux")]
    {
        let port = server.url.rsplit(':').next().unwrap().trim_end_matches("/v1").parse().unwrap();
        assert_eq!(other_sockets(server.process.id(), port), [""; 0]);
    }
}
