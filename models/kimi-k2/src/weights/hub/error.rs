//! What can go wrong between a hub and the disk.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a checkpoint could not be fetched. Every message is one line and says what to do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HubError {
    /// A repository id, revision or file name that cannot be one.
    #[error("{what} {name:?} is not usable: expected {expected}; check the spelling")]
    Name {
        /// Which kind of name.
        what: &'static str,
        /// The name.
        name: String,
        /// What such a name looks like.
        expected: &'static str,
    },
    /// Offline, and the cache lacks something.
    #[error(
        "{repo} (revision {revision}) is not complete in {}: missing {missing}; \
         run `pull {repo}` with network access, or set HF_HOME to the cache that has it",
        cache.display()
    )]
    NotCached {
        /// Repository id.
        repo: String,
        /// Revision.
        revision: String,
        /// Directory of the cache.
        cache: PathBuf,
        /// Names of the files.
        missing: String,
    },
    /// 401 or 403.
    #[error(
        "{url} refused access (status {status}{}); {}",
        if reason.is_empty() { String::new() } else { format!(", {reason}") },
        if *with_token { "accept the model's licence on its page, and check that HF_TOKEN may read it" }
        else { "the repository is gated, private or misspelled: accept its licence on its page and set HF_TOKEN" }
    )]
    Denied {
        /// Address.
        url: String,
        /// HTTP status.
        status: u16,
        /// What the hub says about it.
        reason: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// 404.
    #[error("{url} does not exist (status 404{}); check the repository id and --revision",
        if reason.is_empty() { String::new() } else { format!(", {reason}") })]
    NotFound {
        /// Address.
        url: String,
        /// What the hub says about it.
        reason: String,
    },
    /// Another status that is no success.
    #[error("{url} answered with status {status}; try again later")]
    Status {
        /// Address.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// No answer, after all attempts.
    #[error("{url} cannot be reached: {problem}; check the network and HF_ENDPOINT, or use --offline")]
    Unreachable {
        /// Address.
        url: String,
        /// What the system says.
        problem: String,
    },
    /// An answer that makes no sense.
    #[error("{url} sent an unusable answer: {problem}; check HF_ENDPOINT")]
    Protocol {
        /// Address.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The transfer broke again and again.
    #[error(
        "the download of {file} keeps breaking at byte {done}: {problem}; run the command again to go on from there"
    )]
    Cut {
        /// The file.
        file: String,
        /// Bytes that are here.
        done: u64,
        /// What happened last.
        problem: String,
    },
    /// What came is not what the hub announced, twice.
    #[error(
        "{file} arrived damaged twice: expected {expected}, found {found}; the file was deleted, try another network"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Announced size or hash.
        expected: String,
        /// Size or hash of what came.
        found: String,
    },
    /// The repository has no safetensors files.
    #[error(
        "{repo} has no model.safetensors and no index of shards; choose a repository with safetensors weights"
    )]
    NoWeights {
        /// Repository id.
        repo: String,
    },
    /// No space left.
    #[error("the disk of {} is full; free space, or set HF_HOME to a larger disk, and run the command again", path.display())]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Another problem of the file system.
    #[error("{} cannot be written or read: {problem}; check its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
}

impl HubError {
    pub(super) fn io(path: &Path, error: &std::io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { path, problem: error.to_string() },
        }
    }
}
