//! API keys: who may ask.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::{ApiError, App};

/// Whether a path answers without a key: `/health` and what is below it tell an orchestrator whether to send traffic, and
/// nothing about requests; the playground is a page that asks for the key itself; metrics do when the operator says so.
fn is_open(path: &str, app: &App) -> bool {
    matches!(path, "/" | "/health")
        || path.starts_with("/health/")
        || (path == "/metrics" && app.config().api_keys.open_metrics)
}

/// Where clients of the Messages API send their key.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The keys that are accepted, kept as digests so that neither their bytes nor their lengths can leak.
#[derive(Clone, Default)]
pub struct ApiKeys {
    digests: Vec<[u8; 32]>,
    /// `/metrics` answers without a key.
    open_metrics: bool,
}

/// Who asks: the digest of a known key; nobody in particular when no keys are asked for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Caller(Option<[u8; 32]>);

impl Caller {
    /// Tells callers apart; zeros for nobody in particular.
    pub(crate) fn digest(self) -> [u8; 32] {
        self.0.unwrap_or_default()
    }
}

impl ApiKeys {
    /// No keys: everyone who can connect may ask.
    pub fn none() -> Self {
        Self::default()
    }

    /// These keys, for example the lines of a file. Surrounding whitespace and empty lines are dropped.
    pub fn new(keys: impl IntoIterator<Item = String>) -> Self {
        let digests = keys
            .into_iter()
            .filter(|key| !key.trim().is_empty())
            .map(|key| Sha256::digest(key.trim()).into())
            .collect();
        Self { digests, open_metrics: false }
    }

    /// Whether `/metrics` answers without a key.
    #[must_use]
    pub fn with_open_metrics(self, open_metrics: bool) -> Self {
        Self { open_metrics, ..self }
    }

    /// Whether no key is asked for.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Compares with every key, all of it, so that the time tells nothing.
    fn contains(&self, key: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(key).into();
        self.digests.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&digest)).into()
    }

    fn check(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.is_empty() {
            return Ok(Caller(None));
        }
        let mut sent = [bearer(headers), text(headers, X_API_KEY)].into_iter().flatten().peekable();
        if sent.peek().is_none() {
            return Err(ApiError::no_key());
        }
        match sent.find(|key| self.contains(key)) {
            Some(key) => Ok(Caller(Some(Sha256::digest(key).into()))),
            None => Err(ApiError::wrong_key()),
        }
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({} keys)", self.digests.len())
    }
}

/// The key of `Authorization: Bearer KEY`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = text(headers, header::AUTHORIZATION)?.split_once(' ')?;
    Some(key.trim()).filter(|key| scheme.eq_ignore_ascii_case("bearer") && !key.is_empty())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
}

/// Turns away requests without a known key, unknown routes included, and notes who asks.
pub(crate) async fn require_key(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if !is_open(request.uri().path(), &app) {
        let caller = app.config().api_keys.check(request.headers())?;
        request.extensions_mut().insert(caller);
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_trimmed_and_compared_whole() {
        let keys = ApiKeys::new(["  sk-one \n".to_owned(), String::new(), "sk-two".to_owned()]);
        assert_eq!(format!("{keys:?}"), "ApiKeys(2 keys)");
        assert!(keys.contains("sk-one") && keys.contains("sk-two"));
        assert!(!keys.contains("sk-on") && !keys.contains("sk-one ") && !keys.contains(""));
    }
}
