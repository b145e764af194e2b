//! A server on a free port of the loopback interface, a vocabulary of single bytes, and a client.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use kimi_chat::{Markers, Vocabulary};
use kimi_engine::{EngineConfig, EngineHandle, FakeRunner, SchedulerConfig};
use kimi_http::{AllowedHosts, ApiKeys, App, AppConfig, Contract, FileLimits, Limits, ModelCard, Service};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Ids 0–255 are the bytes; the markers follow.
const MARKERS: [&str; 17] = [
    "[EOS]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|im_system|>",
    "<|im_middle|>",
    "<think>",
    "</think>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<|media_begin|>",
    "<|media_content|>",
    "<|media_end|>",
    "<|media_pad|>",
];

pub(crate) static VOCABULARY: LazyLock<Arc<Vocabulary>> = LazyLock::new(|| {
    let mut ranks = String::new();
    for byte in 0..=255_u8 {
        let spelled = base64::engine::general_purpose::STANDARD.encode([byte]);
        writeln!(ranks, "{spelled} {byte}").expect("memory takes every write");
    }
    let decoder: serde_json::Map<String, Value> = MARKERS
        .iter()
        .enumerate()
        .map(|(offset, name)| ((256 + offset).to_string(), json!({"content": name, "special": true})))
        .collect();
    let config = json!({"added_tokens_decoder": decoder}).to_string();
    Arc::new(Vocabulary::from_tiktoken(ranks.as_bytes(), config.as_bytes()).expect("a valid vocabulary"))
});

/// The tokens of a text in which markers are spelled out.
pub(crate) fn tokens(text: &str) -> Vec<u32> {
    VOCABULARY.encode_with_specials(text)
}

/// A runner that always says `text`.
pub(crate) fn saying(text: &str) -> FakeRunner {
    FakeRunner::scripted(vec![tokens(text)])
}

/// How a test wants its server.
pub(crate) struct Setup {
    pub(crate) runner: FakeRunner,
    pub(crate) config: AppConfig,
    pub(crate) max_context: usize,
    pub(crate) max_sequences: usize,
    pub(crate) max_waiting: usize,
    pub(crate) grace: Duration,
    pub(crate) vision: bool,
}

pub(crate) fn config() -> AppConfig {
    AppConfig {
        contract: Contract::Open,
        api_keys: ApiKeys::none(),
        // Off, so that asking twice gives the same usage.
        prefix_cache: false,
        cache_secret: None,
        max_n: AppConfig::MAX_N,
        reasoning_alias: false,
        cors: false,
        version: "1.2.3",
        render_metrics: None,
        keep_alive: AppConfig::KEEP_ALIVE,
        chat_body_limit: AppConfig::CHAT_BODY_LIMIT,
        files: FileLimits::DEFAULT,
        remote_media: None,
        allowed_hosts: AllowedHosts::Any,
        limits: Limits::default(),
    }
}

impl Setup {
    pub(crate) fn new(runner: FakeRunner) -> Self {
        Self {
            runner,
            config: config(),
            max_context: 4096,
            max_sequences: 16,
            max_waiting: 16,
            grace: Duration::from_secs(5),
            vision: false,
        }
    }

    /// A model that sees.
    pub(crate) fn seeing(runner: FakeRunner) -> Self {
        Self { vision: true, ..Self::new(runner) }
    }

    pub(crate) fn moonshot() -> Self {
        let mut setup = Self::new(saying("</think>ok<|im_end|>"));
        setup.config.contract = Contract::Moonshot;
        setup
    }

    /// A server that is ready.
    pub(crate) async fn serve(self) -> Server {
        let server = self.load().await;
        server.app.ready(server.service());
        server
    }

    /// A server whose model is still loading.
    pub(crate) async fn load(self) -> Server {
        let scheduler = SchedulerConfig {
            block_size: 16,
            block_count: 2 * self.max_context / 16,
            max_batch_tokens: 512,
            max_sequences: self.max_sequences,
            max_context: self.max_context,
            speculation: None,
        };
        let engine_config = EngineConfig { scheduler, max_waiting: self.max_waiting };
        let (engine, _thread) = kimi_engine::start(engine_config, Box::new(self.runner));
        Server::loading(self.config, self.grace, engine, self.vision).await
    }
}

pub(crate) struct Server {
    pub(crate) app: App,
    pub(crate) engine: EngineHandle,
    pub(crate) url: String,
    pub(crate) client: reqwest::Client,
    vision: bool,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn loading(config: AppConfig, grace: Duration, engine: EngineHandle, vision: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound listener"));
        let app = App::new(config);
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(kimi_http::serve(listener, app.clone(), shutdown, grace));
        Self { app, engine, url, client: reqwest::Client::new(), vision, stop: Some(stop), task }
    }

    pub(crate) fn service(&self) -> Service {
        Service {
            engine: self.engine.clone(),
            vocabulary: Arc::clone(&VOCABULARY),
            markers: Markers::resolve(&VOCABULARY).expect("all markers"),
            model: ModelCard {
                names: vec!["kimi-nano".into(), "local/Kimi-Nano".into()],
                owned_by: "test".into(),
                created: 7,
                vision: self.vision,
            },
        }
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().expect("stopped once").send(());
    }

    pub(crate) async fn ended(self) {
        tokio::time::timeout(Duration::from_secs(10), self.task)
            .await
            .expect("the server stops in time")
            .expect("no panic")
            .expect("no error");
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.url)).send().await.expect("an answer")
    }

    /// The status and the JSON body of a GET.
    pub(crate) async fn get_json(&self, path: &str) -> (u16, Value) {
        read(self.get(path).await).await
    }

    pub(crate) fn post(&self, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(format!("{}/v1/chat/completions", self.url)).json(body)
    }

    /// The status and the JSON body of a POST.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        read(self.client.post(url).json(body).send().await.expect("an answer")).await
    }

    pub(crate) async fn chat(&self, body: &Value) -> (u16, Value) {
        read(self.post(body).send().await.expect("an answer")).await
    }

    /// The body of a streamed answer as it came.
    pub(crate) async fn transcript(&self, mut body: Value) -> String {
        body["stream"] = json!(true);
        let response = self.post(&body).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        response.text().await.expect("the whole stream")
    }

    /// Waits until the engine runs `count` requests.
    pub(crate) async fn wait_for_running(&self, count: usize) {
        for _ in 0..500 {
            if self.engine.load().running == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the engine never ran {count} requests: {:?}", self.engine.load());
    }
}

/// The status and the JSON body of an answer.
pub(crate) async fn read(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().expect("text").to_owned();
    assert_eq!(content_type, "application/json", "every answer is JSON");
    for header in ["x-request-id", "x-trace-id"] {
        assert_eq!(response.headers()[header].len(), 32, "every answer has an id");
    }
    (status, response.json().await.expect("JSON"))
}

/// A request with one message.
pub(crate) fn hello() -> Value {
    json!({"model": "kimi-k2.6", "messages": [{"role": "user", "content": "Hi"}]})
}

/// [`hello`] with more keys.
pub(crate) fn hello_with(extra: Value) -> Value {
    extended(hello(), extra)
}

/// `body` with the keys of `extra`.
pub(crate) fn extended(mut body: Value, extra: Value) -> Value {
    let Value::Object(extra) = extra else { panic!("an object") };
    body.as_object_mut().expect("an object").extend(extra);
    body
}

/// The JSON of every `data:` line but `[DONE]`.
pub(crate) fn chunks(transcript: &str) -> Vec<Value> {
    transcript
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect()
}
