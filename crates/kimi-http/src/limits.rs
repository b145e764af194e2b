//! What a client may take of the server before it is cut off.

use std::time::Duration;

/// Limits on connections and requests, the same for all. [`Default`] is what a server should have; tests take less time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From a connection's start, or from the first byte of a later request, to the end of that request's head.
    pub head_within: Duration,
    /// How long a connection may be silent between two requests.
    pub idle_for: Duration,
    /// In this time a body must bring another 16 KiB, or end.
    pub body_stall: Duration,
    /// How long a client may take nothing of an answer that waits for it; then its request is cancelled.
    pub write_stall: Duration,
    /// Connections that are open at once; further ones are answered 503 and closed.
    pub connections: usize,
    /// How long a request may wait for its turn before it is answered 429; `None`: as long as its client does.
    pub queue_wait: Option<Duration>,
    /// How long a request may wait for its images and videos to be decoded, when others' are.
    pub decoder_wait: Duration,
    /// How long decoding them may take.
    pub decode_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_within: Duration::from_secs(10),
            idle_for: Duration::from_secs(75),
            body_stall: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            connections: 4096,
            queue_wait: None,
            decoder_wait: Duration::from_secs(30),
            decode_within: Duration::from_mins(1),
        }
    }
}
