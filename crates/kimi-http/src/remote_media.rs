//! Images and videos behind `https://` URLs, from hosts that the operator allows.
//!
//! A server that fetches what strangers name can be made to reach what only it can reach. So each step narrows what follows:
//! one parser reads the URL, the name must be one of the operator's, every address behind it must be public, and the connection
//! goes to such an address, with no second look-up, no redirect and no proxy. Decisions are in `target.rs` and `address.rs`,
//! without I/O; `download.rs` does what they allow.

mod address;
mod download;
mod refusal;
mod target;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use indexmap::IndexMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::rustls::RootCertStore;

use crate::ApiError;
use download::{Allowance, Downloader};
use refusal::Refusal;
use target::Target;

pub use address::is_public;
pub use target::MediaDomain;

/// Requests whose media are fetched or wait for a decoder at once, at most: each may hold [`RemoteMedia::max_bytes`].
const MAX_FETCHING: usize = 16;

/// How long a request waits for its turn to fetch.
const WAIT: Duration = Duration::from_secs(30);

/// URLs that one request fetches at once.
const AT_ONCE: usize = 4;

/// Different URLs that one request may name.
const MAX_URLS: usize = 64;

/// What may be fetched, and how. [`RemoteMedia::from`] is what a server should have; tests have hosts of their own.
#[derive(Clone, Debug)]
pub struct RemoteMedia {
    /// Hosts, by their exact names.
    pub domains: Vec<MediaDomain>,
    /// Which addresses may be connected to: [`is_public`].
    pub may_connect: fn(IpAddr) -> bool,
    /// Who vouches for hosts: Mozilla's list.
    pub roots: Arc<RootCertStore>,
    /// The port, which URLs must not name: 443.
    pub port: u16,
    /// Bytes that all media of one request may have together: 64 MB.
    pub max_bytes: u64,
    /// How long fetching all media of one request may take: 30 seconds.
    pub within: Duration,
}

impl From<Vec<MediaDomain>> for RemoteMedia {
    fn from(domains: Vec<MediaDomain>) -> Self {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        Self {
            domains,
            may_connect: is_public,
            roots: Arc::new(roots),
            port: 443,
            max_bytes: 64 * 1000 * 1000,
            within: Duration::from_secs(30),
        }
    }
}

impl RemoteMedia {
    /// Whether such a URL is fetched. `kind` is `image` or `video`.
    pub(crate) fn check_url(&self, kind: &str, url: &str) -> Result<(), ApiError> {
        Target::of(url, &self.domains).map(drop).map_err(|refusal| refusal.of(kind))
    }
}

/// A URL of a request whose bytes are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// `image` or `video`, for errors.
    pub(crate) kind: &'static str,
    pub(crate) url: String,
}

/// What was fetched for one request.
#[derive(Default)]
pub(crate) struct Fetched {
    files: IndexMap<String, Bytes>,
    /// Kept while the bytes are.
    _place: Option<OwnedSemaphorePermit>,
}

impl Fetched {
    /// What was behind a URL.
    pub(crate) fn get(&self, url: &str) -> Option<Bytes> {
        self.files.get(url).cloned()
    }
}

/// Fetches media, for a few requests at a time.
pub(crate) struct Fetcher {
    rules: RemoteMedia,
    downloader: Downloader,
    places: Arc<Semaphore>,
}

impl Fetcher {
    pub(crate) fn new(rules: RemoteMedia) -> Self {
        let downloader = Downloader::new(&rules);
        Self { rules, downloader, places: Arc::new(Semaphore::new(MAX_FETCHING)) }
    }

    /// What URLs are checked against.
    pub(crate) fn rules(&self) -> &RemoteMedia {
        &self.rules
    }

    /// Fetches each URL once. Dropping the future ends it: nothing is spawned and left alone.
    ///
    /// # Errors
    /// 400 with "unsupported image url" for what the rules do not allow or the hosts do not give, 429 when too many requests
    /// fetch.
    pub(crate) async fn fetch(&self, wanted: Vec<Wanted>) -> Result<Fetched, ApiError> {
        let wanted: IndexMap<String, &'static str> =
            wanted.into_iter().map(|Wanted { kind, url }| (url, kind)).collect();
        let Some(kind) = wanted.values().next() else { return Ok(Fetched::default()) };
        if wanted.len() > MAX_URLS {
            return Err(Refusal::TooManyUrls { limit: MAX_URLS }.of(kind));
        }
        let place = timeout(WAIT, Arc::clone(&self.places).acquire_owned()).await;
        let place = place.map_err(|_elapsed| {
            ApiError::overloaded("The server is currently overloaded with fetching media; retry later", WAIT)
        })?;
        let deadline = Instant::now() + self.rules.within;
        let allowance = Allowance::new(self.rules.max_bytes);
        let downloads =
            wanted.into_iter().map(|(url, kind)| self.fetch_one(url, kind, &allowance, deadline).boxed());
        let downloads: Vec<_> = downloads.collect();
        let files = stream::iter(downloads).buffered(AT_ONCE).try_collect().await?;
        Ok(Fetched { files, _place: place.ok() })
    }

    async fn fetch_one(
        &self,
        url: String,
        kind: &'static str,
        allowance: &Allowance,
        deadline: Instant,
    ) -> Result<(String, Bytes), ApiError> {
        let download = async {
            let target = Target::of(&url, &self.rules.domains)?;
            let bytes = self.downloader.download(&target, allowance).await;
            // The rest of a URL may be a secret.
            bytes.inspect_err(
                |refusal| tracing::info!(host = target.host, %refusal, "a medium was not fetched"),
            )
        };
        let downloaded = timeout_at(deadline, download).await;
        let slow = |_elapsed| Err(Refusal::TooSlow { limit: self.rules.within });
        match downloaded.unwrap_or_else(slow) {
            Ok(bytes) => Ok((url, bytes)),
            Err(refusal) => Err(refusal.of(kind)),
        }
    }
}
