//! `--kv-disk` over real HTTP with kimi-nano: a server is killed under load, and the next one finds its prefixes.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Server, failure, with};

fn start(disk: &Path, more: &[&str]) -> Server {
    Server::start(&[&["--kv-disk", disk.to_str().unwrap()], more].concat())
}

fn request(server: &Server, text: &str, extra: &Value) -> reqwest::RequestBuilder {
    let body = json!({
        "model": "kimi-k2.6", "messages": [{"role": "user", "content": text}], "temperature": 0,
        "max_tokens": 16, "thinking": {"type": "disabled"},
    });
    server.post("/chat/completions", &with(body, extra))
}

/// The text, and how many of the prompt's tokens were cached, of how many.
async fn ask(server: &Server, text: &str) -> (String, u64, u64) {
    let response = request(server, text, &json!({})).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    let usage = &answer["usage"];
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    (content, cached, usage["prompt_tokens"].as_u64().unwrap())
}

/// A prompt of about 2,000 tokens.
fn long_prompt() -> String {
    let lines: Vec<_> = (0..250).map(|line| format!("{line} times 7 is {}.", line * 7)).collect();
    lines.join(" ") + " What is 2 + 2?"
}

/// Block files, in no order.
fn blocks(disk: &Path) -> Vec<PathBuf> {
    let children = |path: &Path| {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries.collect::<Vec<_>>()
    };
    let caches = children(disk).into_iter().filter(|path| path.is_dir());
    let folders = caches.flat_map(|path| children(&path)).filter(|path| path.is_dir());
    let files = folders.flat_map(|path| children(&path));
    files.filter(|path| path.extension().is_some_and(|extension| extension == "kv")).collect()
}

/// Waits until the answer's blocks are on disk.
async fn saved(server: &Server, tokens: u64) {
    let started = Instant::now();
    while server.metric("kimi_kv_disk_blocks").await < (tokens / 16) as f64 {
        assert!(started.elapsed() < Duration::from_mins(1), "the blocks are not written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_killed_server_leaves_its_prefixes_and_damage_costs_a_computation() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("kv");
    let prompt = long_prompt();

    let server = start(&disk, &[]);
    let (answer, cached, tokens) = ask(&server, &prompt).await;
    assert_eq!(cached, 0);
    let found = (tokens - 1) / 16 * 16;
    // Load: streams that are in the middle of their answers when the process dies.
    let mut streams = Vec::new();
    for index in 0..4 {
        let extra = json!({"stream": true, "max_tokens": 2000, "ignore_eos": true});
        let mut stream = request(&server, &format!("{index} {prompt}"), &extra).send().await.unwrap();
        stream.chunk().await.unwrap();
        streams.push(stream);
    }
    saved(&server, found).await;
    server.kill();
    let mode = fs::metadata(disk.join("secret")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else may read the secret");

    let server = start(&disk, &[]);
    let (again, cached, _) = ask(&server, &prompt).await;
    assert_eq!((&again, cached), (&answer, found), "the warm prefix hits");
    assert!(server.metric("kimi_kv_disk_hits_total").await >= found as f64);
    assert!(server.metric("kimi_kv_disk_restored_bytes_total").await > 0.0);
    let log = server.kill();
    assert!(log.contains("disk") && !log.contains("ignored"), "{log}");

    // Every block is damaged, one in three cut off, and a stranger's file lies among them.
    for (index, path) in blocks(&disk).iter().enumerate() {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
        if index % 3 == 0 {
            bytes.truncate(middle);
        }
        fs::write(path, bytes).unwrap();
    }
    fs::write(blocks(&disk)[0].with_file_name("README"), "not a block").unwrap();
    let server = start(&disk, &[]);
    let (again, cached, _) = ask(&server, &prompt).await;
    assert_eq!((&again, cached), (&answer, 0), "recomputed, and right");
    let (again, cached, _) = ask(&server, &prompt).await;
    assert_eq!((&again, cached), (&answer, found));
    let log = server.kill();
    let at_start = log.lines().filter(|line| line.contains("are no blocks of --kv-disk")).count();
    let at_restore = log.lines().filter(|line| line.contains("ignored and computed again")).count();
    assert_eq!((at_start, at_restore <= 1), (1, true), "{log}");
}

#[tokio::test]
async fn the_disk_belongs_to_one_server_and_one_format() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path(), &["--kv-dtype", "fp8"]);
    let (answer, _, tokens) = ask(&server, &long_prompt()).await;
    let disk = directory.path().to_str().unwrap();
    let error = failure(&["serve", "--port", "0", "--kv-dtype", "fp8", "--kv-disk", disk]);
    assert!(error.contains("used by another server"), "{error}");
    saved(&server, tokens - 1).await;
    server.kill();
    let server = start(directory.path(), &["--kv-dtype", "fp8"]);
    let (again, cached, _) = ask(&server, &long_prompt()).await;
    assert_eq!((again, cached), (answer, (tokens - 1) / 16 * 16));
    server.kill();
    let server = start(directory.path(), &["--kv-dtype", "bf16"]);
    assert_eq!(ask(&server, &long_prompt()).await.1, 0);
}

/// What is promised at start is what fits: the model's card says it, a prompt that fills it is answered, one more is not.
#[tokio::test]
async fn the_context_length_is_what_really_fits() {
    let directory = tempfile::tempdir().unwrap();
    // 960 bytes a token: 100 blocks of 16 tokens and a half.
    let server =
        start(directory.path(), &["--kv-dtype", "bf16", "--kv-memory", &(960 * 16 * 201 / 2).to_string()]);
    let card: Value = reqwest::get(format!("{}/models", server.url)).await.unwrap().json().await.unwrap();
    assert_eq!(card["data"][0]["context_length"], 1600, "{card}");
    let complete = async |tokens: usize| {
        let body = json!({"model": "kimi-k2.6", "prompt": vec![5; tokens], "max_tokens": 1});
        server.post("/completions", &body).send().await.unwrap()
    };
    assert_eq!(complete(1599).await.status(), 200);
    let refused = complete(1600).await;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("1600"));
    let log = server.kill();
    for line in
        ["cache", "1600 tokens in 100 blocks, 960 bytes a token (bf16)", "4608 were asked for and do not fit"]
    {
        assert!(log.contains(line), "{log}");
    }
}
