//! Why a URL is not fetched.

use std::time::Duration;

use crate::ApiError;

/// Why a URL is not fetched. The texts are for the client: they say nothing of what is behind a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it is not a valid URL")]
    Malformed,
    #[error("only https:// URLs are fetched")]
    NotHttps,
    #[error("it must not have a user name or a password")]
    Credentials,
    #[error("it must not name a port")]
    Port,
    #[error("this server does not fetch from its host")]
    Host,
    #[error("a request may have at most {limit} different ones")]
    TooManyUrls { limit: usize },
    #[error("its host has no address that may be connected to")]
    Address,
    #[error("its host cannot be reached")]
    Unreachable,
    #[error("its host offers no secure connection that can be trusted")]
    Insecure,
    #[error("its host redirects, which is not followed; send the URL it leads to")]
    Redirect,
    #[error("its host answered with the status {0}")]
    Status(u16),
    #[error("the answer of its host broke off")]
    Broken,
    #[error("what is fetched for one request may have at most {limit} bytes together")]
    TooLarge { limit: u64 },
    #[error("fetching took longer than {} s", limit.as_secs_f32())]
    TooSlow { limit: Duration },
}

impl Refusal {
    /// 400, with the words by which clients know that they must go on without the medium.
    pub(super) fn of(&self, kind: &str) -> ApiError {
        ApiError::invalid(format!("Invalid request: unsupported {kind} url: {self}"))
    }
}
