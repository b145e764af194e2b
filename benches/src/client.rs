//! One streamed chat completion, with the clock running.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// Speaks to one server.
pub(crate) struct Client {
    http: reqwest::Client,
    base_url: String,
    api_key: Option<String>,
}

/// A finished answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// From sending the request to the first token.
    pub(crate) first_token: Duration,
    /// Between two pieces of the answer that follow each other; one piece is usually one token.
    pub(crate) gaps: Vec<Duration>,
    /// As the server counts them.
    pub(crate) prompt_tokens: u64,
    /// As the server counts them; pieces when it does not.
    pub(crate) completion_tokens: u64,
}

impl Client {
    pub(crate) fn new(base_url: &str, api_key: Option<&str>) -> Result<Self> {
        let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(10)).build()?;
        let base_url = base_url.trim_end_matches('/').to_owned();
        Ok(Self { http, base_url, api_key: api_key.map(str::to_owned) })
    }

    /// The id of the first model the server lists.
    pub(crate) async fn first_model(&self) -> Result<String> {
        let request = self.authorized(self.http.get(format!("{}/models", self.base_url)));
        let list: Value = request.send().await?.error_for_status()?.json().await?;
        let id = list["data"][0]["id"].as_str().context("the server lists no model")?;
        Ok(id.to_owned())
    }

    /// Sends `body`, reads the stream to its end, and measures it.
    pub(crate) async fn stream(&self, body: &Value) -> Result<Answer> {
        let start = Instant::now();
        let request = self.authorized(self.http.post(format!("{}/chat/completions", self.base_url)));
        let mut response = request.json(body).send().await.context("cannot reach the server")?;
        if !response.status().is_success() {
            let status = response.status();
            bail!("{status}: {}", response.text().await.unwrap_or_default());
        }
        let mut stream = Stream::default();
        while let Some(bytes) = response.chunk().await.context("the connection broke")? {
            stream.push(&bytes, Instant::now())?;
        }
        stream.answer(start)
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }
}

/// The events of one answer as they arrive.
#[derive(Default)]
struct Stream {
    /// Bytes of a line that has not ended.
    line: Vec<u8>,
    pieces: Vec<Instant>,
    usage: Option<(u64, u64)>,
    done: bool,
}

impl Stream {
    fn push(&mut self, bytes: &[u8], now: Instant) -> Result<()> {
        self.line.extend_from_slice(bytes);
        while let Some(end) = self.line.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            if let Some(data) = line.trim_ascii().strip_prefix(b"data:") {
                self.event(data.trim_ascii(), now)?;
            }
        }
        Ok(())
    }

    fn event(&mut self, data: &[u8], now: Instant) -> Result<()> {
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        let chunk: Value = serde_json::from_slice(data).context("an event of the stream is not JSON")?;
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            bail!("the stream ended with an error: {error}");
        }
        if has_output(&chunk["choices"][0]["delta"]) {
            self.pieces.push(now);
        }
        let count = |name: &str| chunk["usage"][name].as_u64();
        self.usage = count("prompt_tokens").zip(count("completion_tokens")).or(self.usage);
        Ok(())
    }

    fn answer(self, start: Instant) -> Result<Answer> {
        ensure!(self.done, "the stream was cut: it ended without [DONE]");
        let first = self.pieces.first().context("the answer is empty")?;
        let (prompt_tokens, completion_tokens) = self.usage.unwrap_or((0, self.pieces.len() as u64));
        Ok(Answer {
            first_token: *first - start,
            gaps: self.pieces.windows(2).map(|pair| pair[1] - pair[0]).collect(),
            prompt_tokens,
            completion_tokens,
        })
    }
}

/// Whether a delta carries text or a part of a tool call; the first one often carries the role alone.
fn has_output(delta: &Value) -> bool {
    let text = |name: &str| delta[name].as_str().is_some_and(|text| !text.is_empty());
    text("content") || text("reasoning_content") || text("reasoning") || delta["tool_calls"].is_array()
}
