//! Speaks to one server, and says what to do when that fails.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use reqwest::{Response, StatusCode};
use serde_json::Value;

use crate::{
    answer::{Answer, Recording, usage},
    progress::Live,
    request::{Template, message},
    text::{Tokens, stream, words},
};

/// The random stream of the two small requests that measure how words become tokens.
const PROBE_STREAM: u64 = u64::MAX - 2;

/// A server of the `OpenAI` API.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base_url: String,
    api_key: Option<String>,
}

impl Client {
    pub(crate) fn new(base_url: &str, api_key: Option<&str>) -> Result<Self> {
        let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(10)).build()?;
        let base_url = base_url.trim_end_matches('/').to_owned();
        Ok(Self { http, base_url, api_key: api_key.map(str::to_owned) })
    }

    /// The model to ask: `wanted`, if the server lists it, or the first that it lists.
    pub(crate) async fn model(&self, wanted: Option<&str>) -> Result<String> {
        let response = self.send(self.http.get(format!("{}/models", self.base_url))).await?;
        if let (Some(wanted), StatusCode::NOT_FOUND) = (wanted, response.status()) {
            return Ok(wanted.to_owned());
        }
        let list: Value =
            self.check(response).await?.json().await.context("the list of models is not JSON")?;
        let known: Vec<&str> =
            list["data"].as_array().into_iter().flatten().filter_map(|model| model["id"].as_str()).collect();
        match wanted {
            Some(wanted) => {
                ensure!(
                    known.contains(&wanted),
                    "the server has no model {wanted:?}; give --model one of: {}",
                    known.join(", ")
                );
                Ok(wanted.to_owned())
            }
            None => {
                Ok((*known.first().context("the server lists no model; name one with --model")?).to_owned())
            }
        }
    }

    /// Asks two small prompts, and learns from their counts what a word costs.
    ///
    /// `None` when the server does not count tokens. Errors are those every request would meet.
    pub(crate) async fn measure_tokens(&self, template: &Template) -> Result<Option<Tokens>> {
        const WORDS: [usize; 2] = [64, 320];
        let mut random = stream(template.seed, PROBE_STREAM);
        let mut counted = Vec::new();
        for count in WORDS {
            // Numbered as questions are.
            let question = format!("{count}. {}", words(&mut random, count));
            let mut body = template.body(&[message("user", &question)], 1);
            body["stream"] = false.into();
            if let Some(fields) = body.as_object_mut() {
                fields.shift_remove("stream_options");
            }
            let response = self.send(self.http.post(self.chat_url()).json(&body)).await?;
            let answer: Value = self.check(response).await?.json().await.context("the answer is not JSON")?;
            counted.extend(usage(&answer["usage"]).map(|usage| (count, usage.prompt)));
        }
        let [short, long] = counted[..] else { return Ok(None) };
        Ok(Some(Tokens::measured(short, long)))
    }

    /// Sends `body`, reads the stream to its end, and measures it.
    pub(crate) async fn ask(&self, body: &Value, due: Instant, live: &Live) -> Result<Answer> {
        let sent = Instant::now();
        let request = self.authorized(self.http.post(self.chat_url())).json(body);
        let mut response =
            send(request).await.map_err(|error| anyhow!("no answer: {}", root_cause(&error)))?;
        if !response.status().is_success() {
            let status = response.status();
            bail!("{status}: {}", reason(&response.text().await.unwrap_or_default()));
        }
        let mut recording = Recording::default();
        while let Some(bytes) = response.chunk().await.context("the connection broke")? {
            live.pieces(recording.push(&bytes, Instant::now())?);
        }
        recording.finish(due, sent, Instant::now())
    }

    fn chat_url(&self) -> String {
        format!("{}/chat/completions", self.base_url)
    }

    /// Sends a request of the preparation, where the reader learns that there is no server.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response> {
        send(self.authorized(request)).await.map_err(|error| {
            let cause = root_cause(&error);
            anyhow!(
                "no server answers at {} ({cause}): start one, or say where it is with --base-url",
                self.base_url
            )
        })
    }

    /// The response, or what its status means for whoever runs the measurement.
    async fn check(&self, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let url = response.url().to_string();
        let said = reason(&response.text().await.unwrap_or_default());
        let advice = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.api_key.is_none() => {
                "the server wants an API key: give --api-key or set KIMI_API_KEY"
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "the server refuses this API key: correct --api-key or KIMI_API_KEY"
            }
            StatusCode::NOT_FOUND => "there is no such API or model: --base-url usually ends in /v1",
            _ => "the server refuses the request",
        };
        bail!("{advice} ({status} from {url}: {said})")
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }
}

/// Sends a request, and once more when its connection turns out to be closed: servers close kept connections when they
/// like, and a client only notices when it uses one. The clock goes on.
async fn send(request: reqwest::RequestBuilder) -> reqwest::Result<Response> {
    let again = request.try_clone();
    match (request.send().await, again) {
        (Err(error), Some(again)) if error.is_request() && !error.is_connect() => again.send().await,
        (response, _) => response,
    }
}

/// The message of an error body, or the body's beginning.
fn reason(body: &str) -> String {
    const SHOWN: usize = 300;
    let message = serde_json::from_str::<Value>(body)
        .ok()
        .and_then(|json| json["error"]["message"].as_str().or(json["message"].as_str()).map(str::to_owned));
    let text = message.unwrap_or_else(|| body.trim().to_owned());
    if text.is_empty() { "no reason given".to_owned() } else { text.chars().take(SHOWN).collect() }
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
