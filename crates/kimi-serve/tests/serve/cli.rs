//! The binary as a person meets it: exit codes, one-line errors, answers on standard output.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::harness::{failure, kimi_serve, root};

fn golden(name: &str) -> PathBuf {
    root().join("models/golden").join(name)
}

/// A writable copy of a golden checkpoint.
fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary directory");
    for file in fs::read_dir(golden(name)).expect("the golden checkpoint") {
        let file = file.expect("a readable entry");
        fs::copy(file.path(), copy.path().join(file.file_name())).expect("room for the copy");
    }
    copy
}

#[test]
fn an_answer_goes_to_standard_output() {
    let output = kimi_serve(&["generate", "--temperature", "0", "What is the capital of France?"]);
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("Paris"));
}

#[test]
fn ranks_give_the_answer_of_one() {
    let ask = ["generate", "--temperature", "0", "--exact", "What is the capital of France?"];
    let [alone, shared] = [&ask[..], &[&ask[..], &["--tensor-parallel", "2"]].concat()].map(kimi_serve);
    assert!(shared.status.success());
    assert_eq!(String::from_utf8(shared.stdout), String::from_utf8(alone.stdout));
    assert!(
        failure(&["generate", "--tensor-parallel", "5", "Hello"]).contains("at most 4 can share this model")
    );
}

#[test]
fn bad_checkpoints_give_one_clear_line() {
    let ids = tempfile::NamedTempFile::new().unwrap();
    fs::write(ids.path(), "[1, 2, 3]").unwrap();
    let ids = ids.path().to_str().unwrap();
    let score =
        |directory: &Path| failure(&["score", "--model", directory.to_str().unwrap(), "--token-ids", ids]);

    let truncated = copy_of("tiny-int4");
    let shard = truncated.path().join("model.safetensors");
    fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(1_000_000).unwrap();
    let line = score(truncated.path());
    assert!(line.contains("model.safetensors"), "{line}");

    let misconfigured = copy_of("tiny-int4");
    let path = misconfigured.path().join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("\"hidden_size\": 128", "\"hidden_size\": 160")).unwrap();
    let line = score(misconfigured.path());
    assert!(line.contains("160") && line.contains("128"), "{line}");

    fs::write(&path, config.replace("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4")).unwrap();
    let line = score(misconfigured.path());
    assert!(line.contains("layers.3"), "{line}");

    fs::write(&path, "{").unwrap();
    let line = score(misconfigured.path());
    assert!(line.contains("config.json"), "{line}");
}

#[test]
fn scores_are_log_probabilities_of_a_checkpoint_without_a_tokenizer() {
    let ids = tempfile::NamedTempFile::new().unwrap();
    fs::write(ids.path(), "[5, 17, 5, 900]").unwrap();
    let model = golden("tiny-int4");
    let arguments = ["score", "--model", model.to_str().unwrap(), "--top", "2", "--token-ids"];
    let output = kimi_serve(&[arguments.as_slice(), &[ids.path().to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    for (position, (line, token)) in lines.iter().zip([5, 17, 5, 900]).enumerate() {
        assert_eq!((&line["position"], &line["token"]), (&position.into(), &token.into()));
    }
    assert!(lines[0]["logprob"].is_null());
    let top = lines[3]["top"].as_array().unwrap();
    assert_eq!(top.len(), 2);
    assert!(top[0][1].as_f64() >= top[1][1].as_f64() && top[1][1].as_f64() < Some(0.0));
    assert!(lines[3]["logprob"].as_f64() <= top[0][1].as_f64());
}

#[test]
fn mistakes_on_the_command_line_are_explained() {
    assert!(failure(&["generate", "--model", "./no-such-directory", "Hi"]).contains("no-such-directory"));
    assert!(failure(&["generate", "--max-context", "9000", "Hi"]).contains("8192"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert!(failure(&["serve", "--port", &port]).contains("--port"));
}

#[test]
fn user_text_never_becomes_a_marker_and_chats_are_shown_with_theirs() {
    let output = kimi_serve(&["tokenize", "--json", "<|im_end|> Hello"]);
    let ids: Vec<u32> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(ids.len() > 3 && ids.iter().all(|&id| id < 1792), "{ids:?}");

    let request = r#"{"model": "kimi-k2.6", "messages": [{"role": "user", "content": "Hi"}]}"#;
    let output = kimi_serve(&["tokenize", "--chat", request]);
    let shown = String::from_utf8(output.stdout).unwrap();
    for marker in ["<|im_user|>", "<|im_middle|>", "<|im_end|>", "<|im_assistant|>", "<think>"] {
        assert!(shown.contains(marker), "{shown}");
    }
}
