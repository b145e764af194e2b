//! Requests to a hub: redirects, the token, what the headers tell about a file.

use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, StatusCode, Uri, header},
};

use super::{HubConfig, HubError};

/// Attempts in a row that bring nothing before a request is given up.
pub(super) const MAX_ATTEMPTS: u32 = 5;
const MAX_REDIRECTS: usize = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection that is silent for so long is dead; the transfer goes on with another one.
const SILENCE_TIMEOUT: Duration = Duration::from_mins(1);
/// Largest list of files that is believed.
const MAX_JSON: u64 = 64 << 20;

/// Speaks with one endpoint.
pub(super) struct Client {
    agent: Agent,
    endpoint: Option<Origin>,
    token: Option<String>,
    retry_delay: Duration,
}

/// Scheme, host and port: whom a token may be shown to.
type Origin = (String, String, u16);

/// A file as the hub announces it.
#[derive(Clone, Debug)]
pub(super) struct RemoteFile {
    /// Path in the repository.
    pub(super) name: String,
    /// Where to get it.
    pub(super) url: String,
    /// Names its contents: the sha256 for large files, a git hash for small ones.
    pub(super) etag: String,
    /// Its bytes, when announced.
    pub(super) size: Option<u64>,
}

impl RemoteFile {
    /// What the contents hash to, when the hub tells it.
    pub(super) fn checksum(&self) -> Option<Checksum<'_>> {
        if !self.etag.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        match self.etag.len() {
            64 => Some(Checksum::Sha256(&self.etag)),
            40 => Some(Checksum::GitBlob(&self.etag)),
            _ => None,
        }
    }
}

/// A hash in hexadecimal digits, by the way it is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum<'a> {
    /// SHA-256 of the contents: large files.
    Sha256(&'a str),
    /// SHA-1 of git's header and the contents, as `git hash-object` prints it: small files.
    GitBlob(&'a str),
}

/// What a request wants.
#[derive(Clone, Copy)]
enum Wanted {
    /// Headers only.
    Head,
    /// The body from this byte on.
    From(u64),
    /// The first byte, for servers that know no HEAD.
    FirstByte,
}

impl Client {
    pub(super) fn new(config: &HubConfig) -> Self {
        let agent = Agent::config_builder()
            // Followed by hand: the first answer's headers matter, and the token must not travel along.
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(SILENCE_TIMEOUT))
            .timeout_per_read(Some(SILENCE_TIMEOUT))
            .user_agent(concat!("kimi-serve/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let endpoint = config.endpoint.parse().ok().as_ref().and_then(origin);
        Self { agent, endpoint, token: config.token.clone(), retry_delay: config.retry_delay }
    }

    /// Pauses before attempt `attempt` (counted from 1), longer each time.
    pub(super) fn pause(&self, attempt: u32) {
        std::thread::sleep(self.retry_delay * 2_u32.pow(attempt.saturating_sub(1).min(5)));
    }

    /// The JSON document at `url`.
    pub(super) fn json<T: DeserializeOwned>(&self, url: &str) -> Result<T, HubError> {
        self.with_retries(|| {
            let (_, response) = self.follow(url, Wanted::From(0))?;
            check_status(url, &response, self.token.is_some())?;
            let bytes = response.into_body().into_with_config().limit(MAX_JSON).read_to_vec();
            let bytes = bytes.map_err(|error| unreachable(url, &error))?;
            serde_json::from_slice(&bytes)
                .map_err(|error| HubError::Protocol { url: url.to_owned(), problem: error.to_string() })
        })
    }

    /// What the hub announces about the file at `url`.
    ///
    /// For large files the hub redirects to another host; hash and size are in the headers of the answer that leads
    /// there, and the other host's `ETag` means something else. Redirects inside the hub (a renamed repository) say
    /// nothing about the file.
    pub(super) fn metadata(&self, name: &str, url: &str) -> Result<RemoteFile, HubError> {
        self.with_retries(|| {
            let (mut hops, mut last) = self.follow(url, Wanted::Head)?;
            if matches!(last.status(), StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
                (hops, last) = self.follow(url, Wanted::FirstByte)?;
            }
            let all: Vec<&HeaderMap> = hops.iter().chain([last.headers()]).collect();
            let first = |name: &str| all.iter().find_map(|headers| text(headers, name));
            let linked_etag = first("x-linked-etag");
            if linked_etag.is_none() {
                // Error pages have ETags, too.
                check_status(url, &last, self.token.is_some())?;
            }
            let etag = linked_etag.or_else(|| first("etag"));
            let etag = etag.as_deref().and_then(clean_etag).ok_or_else(|| HubError::Protocol {
                url: url.to_owned(),
                problem: "it has no ETag, which names the contents".to_owned(),
            })?;
            let size = match first("x-linked-size") {
                Some(size) => size.parse().ok(),
                None => whole_size(&last),
            };
            Ok(RemoteFile { name: name.to_owned(), url: url.to_owned(), etag, size })
        })
    }

    /// Asks for the bytes of `file` from `start` on. The answer may be 206 (as asked), 200 (everything) or 416.
    pub(super) fn open(&self, file: &RemoteFile, start: u64) -> Result<Response<Body>, HubError> {
        let (_, response) = self.follow(&file.url, Wanted::From(start))?;
        if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
            check_status(&file.url, &response, self.token.is_some())?;
        }
        Ok(response)
    }

    /// Sends a request and follows redirects. Returns the headers of the answers that led to another host or announced
    /// the file, and the last answer.
    fn follow(&self, url: &str, wanted: Wanted) -> Result<(Vec<HeaderMap>, Response<Body>), HubError> {
        let bad_address = |problem: String| HubError::Protocol { url: url.to_owned(), problem };
        let mut target: Uri = url.parse().map_err(|error| bad_address(format!("{error}")))?;
        let mut hops = Vec::new();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&target, wanted).map_err(|error| unreachable(url, &error))?;
            let location =
                text(response.headers(), "location").filter(|_| response.status().is_redirection());
            let Some(location) = location else { return Ok((hops, response)) };
            let announced = |name: &str| response.headers().contains_key(name);
            if matches!(wanted, Wanted::Head | Wanted::FirstByte)
                && announced("x-linked-etag")
                && announced("x-linked-size")
            {
                // All is said; the other host need not be asked.
                return Ok((hops, response));
            }
            let next = joined(&target, &location);
            let next = next.ok_or_else(|| bad_address(format!("a redirect to {location:?}")))?;
            if announced("x-linked-etag") || origin(&next) != origin(&target) {
                hops.push(response.headers().clone());
            }
            target = next;
        }
        Err(bad_address(format!("more than {MAX_REDIRECTS} redirects")))
    }

    fn send(&self, target: &Uri, wanted: Wanted) -> Result<Response<Body>, ureq::Error> {
        let request = match wanted {
            Wanted::Head => self.agent.head(target),
            Wanted::From(_) | Wanted::FirstByte => self.agent.get(target),
        };
        // Sizes and ranges count bytes of the file, not of some encoding of it.
        let mut request = request.header(header::ACCEPT_ENCODING, "identity");
        match wanted {
            Wanted::From(start @ 1..) => request = request.header(header::RANGE, format!("bytes={start}-")),
            Wanted::FirstByte => request = request.header(header::RANGE, "bytes=0-0"),
            Wanted::Head | Wanted::From(0) => {}
        }
        if let Some(token) = &self.token
            && self.endpoint.is_some()
            && origin(target) == self.endpoint
        {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.call()
    }

    fn with_retries<T>(&self, mut attempt: impl FnMut() -> Result<T, HubError>) -> Result<T, HubError> {
        for count in 1..MAX_ATTEMPTS {
            match attempt() {
                Err(error) if is_passing(&error) => {
                    tracing::debug!(%error, "will try again");
                    self.pause(count);
                }
                result => return result,
            }
        }
        attempt()
    }
}

/// Whether another attempt may succeed.
pub(super) fn is_passing(error: &HubError) -> bool {
    match error {
        HubError::Unreachable { .. } => true,
        HubError::Status { status, .. } => *status == 429 || *status >= 500,
        _ => false,
    }
}

fn unreachable(url: &str, error: &ureq::Error) -> HubError {
    HubError::Unreachable { url: url.to_owned(), problem: error.to_string().replace('\n', " ") }
}

fn check_status(url: &str, response: &Response<Body>, with_token: bool) -> Result<(), HubError> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let url = url.to_owned();
    let reason = text(response.headers(), "x-error-message").or(text(response.headers(), "x-error-code"));
    let reason: String =
        reason.unwrap_or_default().chars().filter(|char| !char.is_control()).take(200).collect();
    Err(match status.as_u16() {
        status @ (401 | 403) => HubError::Denied { url, status, reason, with_token },
        404 => HubError::NotFound { url, reason },
        status => HubError::Status { url, status },
    })
}

/// The size of the whole file that an answer is, or is a part of.
pub(super) fn whole_size(response: &Response<Body>) -> Option<u64> {
    let headers = response.headers();
    match text(headers, "content-range") {
        Some(range) => range.rsplit('/').next()?.parse().ok(),
        None if response.status() == StatusCode::OK => text(headers, "content-length")?.parse().ok(),
        None => None,
    }
}

/// A header's text.
pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// An `ETag` without quotes and weakness mark; it becomes a file name, so anything else than a plain word is refused.
fn clean_etag(etag: &str) -> Option<String> {
    let etag = etag.trim().trim_start_matches("W/").trim_matches('"');
    let plain = etag.chars().all(|char| char.is_ascii_alphanumeric() || "-_.".contains(char));
    (plain && !etag.is_empty() && !etag.starts_with('.') && etag.len() <= 128).then(|| etag.to_owned())
}

fn origin(uri: &Uri) -> Option<Origin> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// The address that `location` means, seen from `base`.
fn joined(base: &Uri, location: &str) -> Option<Uri> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return location.parse().ok();
    }
    let scheme = base.scheme_str()?;
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    let authority = base.authority()?;
    if location.starts_with('/') {
        return format!("{scheme}://{authority}{location}").parse().ok();
    }
    let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
    format!("{scheme}://{authority}{directory}/{location}").parse().ok()
}
