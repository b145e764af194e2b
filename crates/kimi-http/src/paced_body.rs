//! A request's body that must keep coming: whoever sends a few bytes now and then does not hold a request open.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use crate::{ApiError, App};

/// Bytes that must arrive in each window.
const PROGRESS: usize = 16 * 1024;

/// Puts every body under the pace. All routes read through it, whatever they read.
pub(crate) async fn pace(State(app): State<App>, request: Request, next: Next) -> Response {
    let window = app.config().limits.body_stall;
    let paced = |body: Body| Paced::new(body, window).into_body();
    next.run(request.map(|body| if body.is_end_stream() { body } else { paced(body) })).await
}

/// Why a body could not be read: too slow, or broken off.
pub(crate) fn read_error(error: &(dyn Error + 'static)) -> ApiError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(Stalled { window }) = error.downcast_ref() {
            return ApiError::timed_out(format!(
                "Invalid request: the body came too slowly: it must bring {PROGRESS} bytes or its end every {} seconds",
                window.as_secs_f64()
            ));
        }
        cause = error.source();
    }
    ApiError::invalid("Invalid request: the body could not be read to its end")
}

struct Paced {
    pieces: BodyDataStream,
    window: Duration,
    /// The end of the window, and what arrived in it.
    end: Instant,
    arrived: usize,
}

/// Too little of the body arrived in a window.
#[derive(Debug)]
struct Stalled {
    window: Duration,
}

impl fmt::Display for Stalled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the body came too slowly")
    }
}

impl Error for Stalled {}

impl Paced {
    fn new(body: Body, window: Duration) -> Self {
        Self { pieces: body.into_data_stream(), window, end: Instant::now() + window, arrived: 0 }
    }

    /// What arrives next. What has arrived is read first: a window that ends while the server was busy is not the client's
    /// fault.
    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        let Ok(piece) = timeout_at(self.end, self.pieces.next()).await else {
            return Some(Err(axum::Error::new(Stalled { window: self.window })));
        };
        self.arrived += piece.as_ref()?.as_ref().map_or(0, Bytes::len);
        if self.arrived >= PROGRESS {
            self.arrived = 0;
            self.end = Instant::now() + self.window;
        }
        piece
    }

    fn into_body(self) -> Body {
        Body::from_stream(futures_util::stream::unfold(self, async |mut paced| {
            let piece = paced.next().await?;
            Some((piece, paced))
        }))
    }
}
