//! One connection under the server's time limits: a head that does not come, silence between requests, an answer that
//! nobody takes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::Limits;

/// What a connection is doing, as far as its reader must know.
#[derive(Debug, Default)]
struct Stage {
    /// One of the constants, and above its two bits how many answers have ended: a time limit begins anew with each.
    state: AtomicU32,
    /// The reader, which must look again when an answer has ended.
    reader: AtomicWaker,
}

impl Stage {
    /// Between requests: the next one may take its time.
    const IDLE: u32 = 0;
    /// A request's head is under way.
    const HEAD: u32 = 1;
    /// A request is being answered; its body has limits of its own.
    const BUSY: u32 = 2;

    /// The state, and which of the constants it is.
    fn get(&self) -> (u32, u32) {
        let state = self.state.load(Ordering::Relaxed);
        (state, state & 3)
    }

    fn begin(&self, stage: u32) {
        let (state, now) = self.get();
        self.state.store(state - now + stage, Ordering::Relaxed);
    }

    fn end_answer(&self) {
        let (state, now) = self.get();
        self.state.store((state - now).wrapping_add(4) + Self::IDLE, Ordering::Relaxed);
        self.reader.wake();
    }
}

/// Both sides of a connection: the bytes, and the service that tells them when a request begins and when its answer ends.
pub(crate) fn guard<S>(stream: S, router: Router, limits: Limits) -> (Guarded<S>, Marking) {
    // A connection that was just opened owes its first head.
    let stage = Arc::new(Stage::default());
    stage.begin(Stage::HEAD);
    let reading = Deadline::after(limits.head_within);
    let guarded =
        Guarded { stream, stage: Arc::clone(&stage), limits, reading, writing: Deadline::default() };
    (guarded, Marking { router: TowerToHyperService::new(router), stage })
}

/// A stream that fails when its limits are passed, which ends the connection and drops whatever it was answering.
pub(crate) struct Guarded<S> {
    stream: S,
    stage: Arc<Stage>,
    limits: Limits,
    /// For the head, or for the silence before it.
    reading: Deadline,
    /// For the client to take something.
    writing: Deadline,
}

/// A timer that is made when it is first needed and kept.
#[derive(Default)]
struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    /// What it runs for.
    armed: Option<u32>,
}

impl Deadline {
    fn after(time: Duration) -> Self {
        let mut deadline = Self::default();
        deadline.arm(Stage::HEAD, time);
        deadline
    }

    /// Starts the time for `what`, unless it runs already.
    fn arm(&mut self, what: u32, time: Duration) {
        if self.armed == Some(what) {
            return;
        }
        self.armed = Some(what);
        let end = Instant::now() + time;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(end),
            None => self.sleep = Some(Box::pin(sleep_until(end))),
        }
    }

    fn disarm(&mut self) {
        self.armed = None;
    }

    /// An error once the time is up; until then the task is woken for it.
    fn check(&mut self, context: &mut Context<'_>, what: &str) -> io::Result<()> {
        let running = self.sleep.as_mut().filter(|_| self.armed.is_some());
        if running.is_some_and(|sleep| sleep.as_mut().poll(context).is_ready()) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        Ok(())
    }
}

impl<S> Guarded<S> {
    fn check_reading(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let (state, stage) = self.stage.get();
        match stage {
            Stage::BUSY => {
                self.stage.reader.register(context.waker());
                self.reading.disarm();
                return Ok(());
            }
            Stage::IDLE => self.reading.arm(state, self.limits.idle_for),
            _ => self.reading.arm(state, self.limits.head_within),
        }
        self.reading.check(context, "the head of a request did not arrive in time")
    }

    /// Measures how long a client takes nothing.
    fn check_writing<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.writing.disarm();
            return written;
        }
        self.writing.arm(Stage::BUSY, self.limits.write_stall);
        self.writing.check(context, "the client does not take its answer")?;
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_reading(context)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if self.stage.get().1 == Stage::IDLE && buffer.filled().len() > before {
            self.stage.begin(Stage::HEAD);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check_writing(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.check_writing(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The router, telling the connection when a request begins and when its answer ends.
pub(crate) struct Marking {
    router: TowerToHyperService<Router>,
    stage: Arc<Stage>,
}

impl Service<Request<Incoming>> for Marking {
    type Response = Response<Marked>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.stage.begin(Stage::BUSY);
        let end = AnswerEnd(Arc::clone(&self.stage));
        self.router
            .call(request)
            .map(|answer| answer.map(|response| response.map(|body| Marked { body, _end: end })))
            .boxed()
    }
}

/// An answer's body; the connection is idle again when it is gone.
pub(crate) struct Marked {
    body: Body,
    _end: AnswerEnd,
}

struct AnswerEnd(Arc<Stage>);

impl Drop for AnswerEnd {
    fn drop(&mut self) {
        self.0.end_answer();
    }
}

impl HttpBody for Marked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
