//! Over 200 schemas through the whole server, as answers and as arguments, with two models: kimi-nano, and one whose weights
//! are random.

use std::{path::Path, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::harness::{Server, root, with};

#[derive(Deserialize)]
struct Case {
    name: String,
    schema: Value,
}

/// Random weights with kimi-nano's vocabulary, which has the same size.
fn random_checkpoint() -> tempfile::TempDir {
    let root = root();
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &Path| std::fs::copy(from, folder.path().join(from.file_name().unwrap())).unwrap();
    for file in ["config.json", "model.safetensors"] {
        copy(&root.join("models/golden/tiny-int4").join(file));
    }
    for file in ["tiktoken.model", "tokenizer_config.json", "chat_template.jinja"] {
        copy(&root.join("models/kimi-nano").join(file));
    }
    folder
}

fn check(case: &Case, text: &str, how: &str) {
    let instance: Value = serde_json::from_str(text)
        .unwrap_or_else(|error| panic!("{}, {how}: {error} in {text:?}", case.name));
    let validator = jsonschema::draft202012::new(&case.schema).expect("a schema");
    if let Err(error) = validator.validate(&instance) {
        panic!("{}, {how}: {error} in {text}", case.name);
    }
}

/// Each schema as the answer's format and, where it describes an object, as the arguments of a call that must be made.
/// Returns how many texts were checked.
async fn every_schema(server: &Server) -> usize {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../../../kimi-guide/tests/schemas.json")).unwrap();
    let (client, places) = (reqwest::Client::new(), Arc::new(Semaphore::new(8)));
    let mut running = JoinSet::new();
    for (index, case) in cases.into_iter().enumerate() {
        let (client, places) = (client.clone(), Arc::clone(&places));
        let url = format!("{}/chat/completions", server.url);
        running.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let ask = async |extra: Value| {
                let body = json!({"model": "kimi-k2.6", "messages": [{"role": "user", "content": "Fill it in."}],
                    "max_tokens": 700, "seed": index, "temperature": 1, "thinking": {"type": "disabled"}});
                let response = client.post(&url).json(&with(body, &extra)).send().await.expect("an answer");
                let status = response.status();
                let mut answer: Value = response.json().await.unwrap();
                assert_eq!(status, 200, "{}: {answer}", case.name);
                answer["choices"][0].take()
            };
            let schema = json!({"name": "answer", "schema": case.schema});
            let choice = ask(json!({"response_format": {"type": "json_schema", "json_schema": schema}})).await;
            check(&case, choice["message"]["content"].as_str().unwrap(), "as an answer");
            if case.schema["type"] != "object" {
                return 1;
            }
            let tool = json!({"type": "function", "function": {"name": "fill", "parameters": case.schema}});
            let choice = ask(json!({"tools": [tool], "tool_choice": "required"})).await;
            let calls = choice["message"]["tool_calls"].as_array().cloned().unwrap_or_default();
            assert!(!calls.is_empty(), "{}: {choice}", case.name);
            for call in &calls {
                check(&case, call["function"]["arguments"].as_str().unwrap(), "as arguments");
            }
            1 + calls.len()
        });
    }
    let mut checked = 0;
    while let Some(count) = running.join_next().await {
        checked += count.unwrap();
    }
    checked
}

#[tokio::test]
async fn kimi_nano_keeps_every_schema() {
    let server = Server::start(&[]);
    assert!(every_schema(&server).await >= 400);
}

#[tokio::test]
async fn random_weights_keep_every_schema() {
    let folder = random_checkpoint();
    let server = Server::start(&["--model", folder.path().to_str().unwrap()]);
    assert!(every_schema(&server).await >= 400);
}
