//! How long a request waits for its turn.

use std::pin::Pin;
use std::time::Duration;

use kimi_engine::GenerationStream;
use tokio::time::{Sleep, sleep};

/// What is left of the time in which a request must have its turn. Nothing is left to wait for once it has.
pub(crate) struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// Begins now. `None` waits as long as the client does.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self(limit.map(|limit| Box::pin(sleep(limit))))
    }

    /// Returns when the time is over; never if there is no limit. Safe to cancel: the time goes on.
    pub(crate) async fn ends(&mut self) {
        match &mut self.0 {
            Some(end) => end.as_mut().await,
            None => std::future::pending().await,
        }
    }

    /// Judges a request at the end of its time. One that has had its turn has all the time it needs.
    pub(crate) fn is_lost(&mut self, stream: &GenerationStream) -> bool {
        self.0 = None;
        !stream.has_started()
    }
}
