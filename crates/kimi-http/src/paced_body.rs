//! A request's body that must keep coming: whoever sends a few bytes now and then does not hold a request open.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::{ApiError, App};

/// Bytes that must arrive in each window.
const PROGRESS: usize = 16 * 1024;

/// Puts every body under the pace. All routes read through it, whatever they read.
pub(crate) async fn pace(State(app): State<App>, request: Request, next: Next) -> Response {
    let window = app.config().limits.body_stall;
    let paced =
        request.map(|body| if body.is_end_stream() { body } else { Body::new(Paced::new(body, window)) });
    next.run(paced).await
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
    body: Body,
    window: Duration,
    /// The end of the window, and what arrived in it.
    end: Pin<Box<Sleep>>,
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
        Self { body, window, end: Box::pin(sleep(window)), arrived: 0 }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.arrived += frame.data_ref().map_or(0, Bytes::len);
            if self.arrived >= PROGRESS {
                self.arrived = 0;
                let end = Instant::now() + self.window;
                self.end.as_mut().reset(end);
            }
        }
        // What has arrived is read first: a window that ends while the server was busy is not the client's fault.
        if polled.is_pending() && self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(Stalled { window: self.window }))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
