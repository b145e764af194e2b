//! What the tests of the Messages and Responses APIs share.

use std::sync::{Arc, Mutex};

use kimi_engine::FakeRunner;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::harness::{Server, Setup, tokens};

/// The prompts an engine saw, last one last.
pub(crate) type Prompts = Arc<Mutex<Vec<Vec<u32>>>>;

/// A runner that says `text` and notes what it was asked.
pub(crate) fn listening(text: &str) -> (FakeRunner, Prompts) {
    let (seen, answer) = (Prompts::default(), tokens(text));
    let prompts = Arc::clone(&seen);
    let runner = FakeRunner::answering(move |sequence| {
        prompts.lock().unwrap().push(sequence.prompt.to_vec());
        answer.clone()
    });
    (runner, seen)
}

/// The `(event:, data:)` pairs of a stream. Comments are left out.
pub(crate) fn events(transcript: &str) -> Vec<(String, Value)> {
    transcript
        .split_terminator("\n\n")
        .filter(|event| !event.starts_with(':'))
        .map(|event| {
            let (name, data) = event.split_once('\n').expect("two lines");
            let name = name.strip_prefix("event: ").expect("a name").to_owned();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).unwrap();
            assert_eq!(data["type"], name, "the name is the type");
            (name, data)
        })
        .collect()
}

impl Server {
    /// The streamed answer of any route, as it came.
    pub(crate) async fn stream(&self, path: &str, mut body: Value) -> String {
        body["stream"] = json!(true);
        let request = self.client.post(format!("{}{path}", self.url)).json(&body);
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        response.text().await.expect("the whole stream")
    }
}

/// Output of a model that knows the format, more or less: every marker in every place.
fn any_output() -> impl Strategy<Value = Vec<u32>> {
    let piece = prop_oneof![
        4 => "[a-zé語 ]{1,6}".prop_map(|text| tokens(&text)),
        2 => Just(tokens("</think>")),
        2 => Just(tokens(
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"x\": \"é\"}\
             <|tool_call_end|><|tool_calls_section_end|>"
        )),
        1 => Just(tokens("<|tool_call_begin|>functions.g:1<|tool_call_argument_begin|>{\"cut\": tr")),
        1 => Just(tokens("STOP")),
        1 => Just(tokens("STO")),
        1 => prop::collection::vec(0_u32..269, 1..4),
    ];
    (prop::collection::vec(piece, 0..8), any::<bool>()).prop_map(|(pieces, ends)| {
        let mut output = pieces.concat();
        if ends || output.is_empty() {
            output.extend(tokens("<|im_end|>"));
        }
        output
    })
}

/// Asks for the same answer whole and streamed, for many answers, and has `compare` look at both.
pub(crate) fn streamed_is_whole(
    path: &str,
    body: &Value,
    compare: fn(&Value, &str) -> Result<(), TestCaseError>,
) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let script = Arc::new(Mutex::new(Vec::new()));
    let said = Arc::clone(&script);
    let runner = FakeRunner::answering(move |_| said.lock().unwrap().clone());
    let server = runtime.block_on(Setup::new(runner).serve());
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let test = proptest::test_runner::TestRunner::new(config).run(&any_output(), |output| {
        *script.lock().unwrap() = output;
        let (whole, transcript) = runtime.block_on(async {
            let (status, whole) = server.post_json(path, body).await;
            assert_eq!(status, 200, "{whole}");
            (whole, server.stream(path, body.clone()).await)
        });
        compare(&whole, &transcript)
    });
    test.unwrap_or_else(|failure| panic!("{failure}"));
}
