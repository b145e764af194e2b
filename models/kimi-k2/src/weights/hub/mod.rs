//! Checkpoints by repository id: fetched from a Hugging Face hub into the cache that other programs share.
//!
//! The `hf-hub` crate gives the layout of the cache. Its downloader is not used: it does not compare what it fetched with
//! the hash that the hub announces, and it cannot be told where a cut transfer stopped. For 595 GB both matter, so the
//! transfer is written here, on `ureq`.

mod cache;
mod client;
mod download;
mod error;

use std::{
    path::PathBuf,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use serde::Deserialize;

use super::index::{INDEX_FILE, SINGLE_FILE};
use cache::RepoCache;
use client::{Client, RemoteFile};
pub use error::HubError;

/// Shards fetched at once: one connection rarely fills the line, many annoy the server.
const PARALLEL_FILES: usize = 4;
/// The revision that is meant when none is named.
pub const DEFAULT_REVISION: &str = "main";

/// Where the hub and the cache are. The program reads the environment, this crate does not.
#[derive(Clone)]
pub struct HubConfig {
    /// The cache's `hub` directory.
    pub cache_dir: PathBuf,
    /// Base address, such as `https://huggingface.co`.
    pub endpoint: String,
    /// Sent to the endpoint's host only.
    pub token: Option<String>,
    /// Use what is in the cache, without any request.
    pub offline: bool,
    /// Pause before the second attempt; doubles with each further one.
    pub retry_delay: Duration,
}

impl HubConfig {
    /// The public hub.
    pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

    /// The public hub with the cache in `cache_dir`.
    pub fn new(cache_dir: PathBuf) -> Self {
        Self {
            cache_dir,
            endpoint: Self::DEFAULT_ENDPOINT.to_owned(),
            token: None,
            offline: false,
            retry_delay: Duration::from_secs(1),
        }
    }

    /// Reads the variables that all Hugging Face programs know, through `variable`: `HF_HUB_CACHE`, `HF_HOME`,
    /// `XDG_CACHE_HOME`, `HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`. Without `HF_TOKEN`, the
    /// token that `hf auth login` left in `HF_HOME` is used.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let user_cache = || {
            let home = || {
                PathBuf::from(variable("HOME").or(variable("USERPROFILE")).unwrap_or_else(|| ".".to_owned()))
            };
            variable("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from)
        };
        let home = variable("HF_HOME").map_or_else(|| user_cache().join("huggingface"), PathBuf::from);
        let mut config = Self::new(variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from));
        if let Some(endpoint) = variable("HF_ENDPOINT") {
            endpoint.trim_end_matches('/').clone_into(&mut config.endpoint);
        }
        let token_file = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let token = variable("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file).ok());
        config.token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        config.offline = variable("HF_HUB_OFFLINE")
            .is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"));
        config
    }
}

impl std::fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token must never reach a log.
        f.debug_struct("HubConfig")
            .field("cache_dir", &self.cache_dir)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "set"))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownloadProgress<'a> {
    /// The file that has just grown.
    pub file: &'a str,
    /// Its bytes that are here.
    pub done: u64,
    /// Its bytes in all; 0 while unknown.
    pub total: u64,
    /// Bytes of all files that are here.
    pub all_done: u64,
    /// Bytes of all files. Grows once, when the shards' sizes become known.
    pub all_total: u64,
}

/// A hub and the cache of what was fetched from it.
pub struct Hub {
    config: HubConfig,
    client: Client,
}

#[derive(Deserialize)]
struct RevisionInfo {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

#[derive(Deserialize)]
struct WeightMap {
    weight_map: std::collections::BTreeMap<String, String>,
}

impl Hub {
    /// A hub; nothing is asked yet.
    pub fn new(config: HubConfig) -> Self {
        let client = Client::new(&config);
        Self { config, client }
    }

    /// The directory of a checkpoint: from the cache when offline, else brought up to date first. When the hub cannot be
    /// reached and the cache holds the revision, the cache serves.
    ///
    /// # Errors
    /// What [`Self::cached`] and [`Self::pull`] report.
    pub fn fetch(
        &self,
        repo: &str,
        revision: &str,
        on_progress: &mut dyn FnMut(DownloadProgress<'_>),
    ) -> Result<PathBuf, HubError> {
        if self.config.offline {
            return self.cached(repo, revision);
        }
        match self.pull(repo, revision, on_progress) {
            Err(error @ HubError::Unreachable { .. }) => {
                let cached = self.cached(repo, revision).map_err(|_| error)?;
                tracing::warn!(repo, revision, "the hub cannot be reached; using the cache");
                Ok(cached)
            }
            result => result,
        }
    }

    /// The directory of a checkpoint in the cache, without any request.
    ///
    /// # Errors
    /// The id is malformed, or something is missing: the error lists what.
    pub fn cached(&self, repo: &str, revision: &str) -> Result<PathBuf, HubError> {
        let cache = RepoCache::new(&self.config.cache_dir, repo, revision)?;
        let missing = match cache.cached_commit() {
            None => vec!["the whole checkpoint".to_owned()],
            Some(commit) => {
                let snapshot = cache.snapshot(&commit);
                let missing = missing_files(&snapshot);
                if missing.is_empty() {
                    return Ok(snapshot);
                }
                missing
            }
        };
        Err(HubError::NotCached {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            cache: self.config.cache_dir.clone(),
            missing: shortened(&missing),
        })
    }

    /// Fetches what the cache lacks of a checkpoint: configuration, tokenizer, templates, and the safetensors files that
    /// its index names. Goes on where an earlier call was cut off; every file is verified before it gets its name.
    ///
    /// # Errors
    /// The hub refuses, cannot be reached, or keeps sending something else than it announced; the disk is full.
    pub fn pull(
        &self,
        repo: &str,
        revision: &str,
        on_progress: &mut dyn FnMut(DownloadProgress<'_>),
    ) -> Result<PathBuf, HubError> {
        let cache = RepoCache::new(&self.config.cache_dir, repo, revision)?;
        if self.config.offline {
            return self.cached(repo, revision);
        }
        let info: RevisionInfo = self.client.json(&cache.api_url(&self.config.endpoint))?;
        cache::check_commit(&info.sha)?;
        let snapshot = cache.snapshot(&info.sha);
        let names: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        let mut totals = Totals { on_progress, all_done: 0, all_total: 0 };
        let pull = Pull { hub: self, cache: &cache, commit: &info.sha };

        let small: Vec<String> = names.iter().filter(|name| is_small_file(name)).cloned().collect();
        pull.files(&small, &mut totals)?;
        let weights = match weight_files(&snapshot)? {
            Some(shards) => shards,
            None if names.iter().any(|name| name == SINGLE_FILE) => vec![SINGLE_FILE.to_owned()],
            None => return Err(HubError::NoWeights { repo: repo.to_owned() }),
        };
        pull.files(&weights, &mut totals)?;
        cache.write_ref(&info.sha)?;
        Ok(snapshot)
    }
}

/// One call of [`Hub::pull`].
struct Pull<'a> {
    hub: &'a Hub,
    cache: &'a RepoCache,
    commit: &'a str,
}

/// What a worker tells the thread that waits for it.
enum Event<'a> {
    /// A file has so many bytes now; it had `before` of them at the last report.
    Grown {
        file: &'a RemoteFile,
        before: u64,
        done: u64,
    },
    Failed(HubError),
}

impl Pull<'_> {
    /// Fetches those of `names` that the snapshot lacks, a few at a time.
    fn files(&self, names: &[String], totals: &mut Totals<'_>) -> Result<(), HubError> {
        let snapshot = self.cache.snapshot(self.commit);
        let mut wanted: Vec<RemoteFile> = Vec::new();
        for name in names {
            cache::check_file_name(name)?;
            // A commit never changes and a file is linked only when verified: what is there is right.
            if !snapshot.join(name).exists() {
                let url = self.cache.file_url(&self.hub.config.endpoint, self.commit, name);
                wanted.push(self.hub.client.metadata(name, &url)?);
            }
        }
        totals.all_total += wanted.iter().filter_map(|file| file.size).sum::<u64>();
        let next = AtomicUsize::new(0);
        let (sender, events) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL_FILES.min(wanted.len()) {
                let (sender, next, wanted) = (sender.clone(), &next, &wanted);
                scope.spawn(move || {
                    while let Some(file) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.one(file, &sender) {
                            // After the first failure no further file is begun.
                            next.store(wanted.len(), Ordering::Relaxed);
                            let _ = sender.send(Event::Failed(error));
                        }
                    }
                });
            }
            // The callback runs here, on the caller's thread, so it need not be thread-safe.
            drop(sender);
            let mut failure = None;
            for event in events {
                match event {
                    Event::Grown { file, before, done } => totals.report(file, before, done),
                    Event::Failed(error) => failure = failure.or(Some(error)),
                }
            }
            failure.map_or(Ok(()), Err)
        })
    }

    fn one<'f>(&self, file: &'f RemoteFile, sender: &mpsc::Sender<Event<'f>>) -> Result<(), HubError> {
        let blob = self.cache.blob(&file.etag);
        let _lock = self.cache.lock(&file.etag)?;
        let mut before = 0;
        let mut report = |done: u64| {
            // Who waits for the events is gone only when this thread is being waited for no more.
            let _ = sender.send(Event::Grown { file, before, done });
            before = done;
        };
        let here = blob.metadata().map(|data| data.len()).ok();
        match here.filter(|&here| file.size.is_none_or(|size| size == here)) {
            Some(size) => report(size),
            None => download::download(&self.hub.client, file, &blob, &mut report)?,
        }
        self.cache.link(self.commit, &file.name, &file.etag)
    }
}

/// Sums over the files of one pull.
struct Totals<'a> {
    on_progress: &'a mut dyn FnMut(DownloadProgress<'_>),
    all_done: u64,
    all_total: u64,
}

impl Totals<'_> {
    fn report(&mut self, file: &RemoteFile, before: u64, done: u64) {
        // A damaged file that was thrown away has fewer bytes than before.
        self.all_done = self.all_done + done - before;
        (self.on_progress)(DownloadProgress {
            file: &file.name,
            done,
            total: file.size.unwrap_or(0),
            all_done: self.all_done,
            all_total: self.all_total,
        });
    }
}

/// Whether a file is one of those beside the weights that serving needs.
fn is_small_file(name: &str) -> bool {
    let known = ["tiktoken.model", "tokenizer.model"].contains(&name);
    let extension = std::path::Path::new(name).extension().and_then(|extension| extension.to_str());
    !name.contains('/') && (known || matches!(extension, Some("json" | "jinja")))
}

/// The shards that a snapshot's index names, or `None` without an index.
fn weight_files(snapshot: &std::path::Path) -> Result<Option<Vec<String>>, HubError> {
    let path = snapshot.join(INDEX_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(&path).map_err(|error| HubError::io(&path, &error))?;
    let index: WeightMap = serde_json::from_slice(&bytes).map_err(|error| HubError::Protocol {
        url: path.display().to_string(),
        problem: error.to_string(),
    })?;
    let shards: std::collections::BTreeSet<String> = index.weight_map.into_values().collect();
    Ok(Some(shards.into_iter().collect()))
}

/// What a snapshot lacks to be loaded.
fn missing_files(snapshot: &std::path::Path) -> Vec<String> {
    let mut wanted = vec!["config.json".to_owned()];
    match weight_files(snapshot) {
        Ok(Some(shards)) => wanted.extend(shards),
        Ok(None) => wanted.push(SINGLE_FILE.to_owned()),
        Err(_) => return vec![INDEX_FILE.to_owned()],
    }
    wanted.retain(|name| cache::check_file_name(name).is_err() || !snapshot.join(name).is_file());
    wanted
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 4;
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}
