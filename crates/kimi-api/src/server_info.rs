//! What the server says of itself: `GET /version` and `GET /load`.

use schemars::JsonSchema;
use serde::Serialize;

/// The answer of `GET /version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct VersionInfo {
    /// Which server this is.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Which rules it follows: `open` or `moonshot`.
    pub contract: String,
}

/// The answer of `GET /load`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LoadInfo {
    /// Requests that run or wait, the name by which other servers report it.
    pub server_load: usize,
    /// Requests that are being computed.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Blocks of the cache in use.
    pub cache_blocks_used: usize,
    /// Blocks of the cache not in use.
    pub cache_blocks_free: usize,
    /// How often a request lost its blocks to an earlier one.
    pub preemptions: u64,
}
