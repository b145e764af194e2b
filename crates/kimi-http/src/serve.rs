//! Serving until told to stop, and stopping without cutting anybody off.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::connection::guard;
use crate::{ApiError, App};

/// Bytes of a request's head and of its body's pieces that are held at a time; a larger head is refused.
const READ_BUFFER: usize = 64 * 1024;

/// How long a client that finds no place gets to read why.
const TURN_AWAY_WITHIN: Duration = Duration::from_secs(1);

/// How long connections may take to send their last bytes after every answer has ended.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Serves `app` on `listener` until `shutdown` resolves, then drains.
///
/// Draining: new requests are answered 503 while those that run go on for at most `grace`; then the engine is told to
/// abort, which ends the remaining streams with an error event; then the listener closes. Bind the listener before the
/// model is loaded, so that `/health` can report the progress.
///
/// HTTP/1.1 only, with limits on the size of a request's head and on the time it takes to arrive.
///
/// # Errors
/// When `listener` is not bound.
pub async fn serve(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    tracing::debug!(address = %listener.local_addr()?, "listening");
    let close = CancellationToken::new();
    let stop = async {
        shutdown.await;
        drain(&app, grace).await;
        close.cancel();
    };
    let ((), ()) = tokio::join!(accept_until(listener, &app, &close), stop);
    app.files().clear();
    Ok(())
}

/// Takes connections until `close`, then lets each finish the answer it is writing.
async fn accept_until(mut listener: TcpListener, app: &App, close: &CancellationToken) {
    let router = app.router();
    let mut http = http1::Builder::new();
    // The time a head may take is watched by `connection`, which can tell it from the silence between requests.
    http.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(READ_BUFFER);
    let open = GracefulShutdown::new();
    let limits = app.config().limits;
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let connection = tokio::select! {
            // Errors of single connections and a shortage of file descriptors are waited out in there.
            (connection, _) = Listener::accept(&mut listener) => connection,
            () = close.cancelled() => break,
        };
        // A token is a small packet; waiting for more would only delay it.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "could not switch off Nagle's algorithm");
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tokio::spawn(timeout(TURN_AWAY_WITHIN, turn_away(connection)));
            continue;
        };
        let (connection, service) = guard(connection, router.clone(), limits);
        let connection = open.watch(http.serve_connection(TokioIo::new(connection), service));
        // The task owns the connection and with it every answer on it; it ends when the client leaves.
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
    drop(listener);
    let _ = timeout(CLOSE_WITHIN, open.shutdown()).await;
}

/// Tells a client that there is no place for its connection, in the little time that it gets.
async fn turn_away(mut connection: TcpStream) -> io::Result<()> {
    metrics::counter!(crate::metrics::CONNECTIONS_REFUSED_TOTAL).increment(1);
    let error = ApiError::unavailable("Too many connections are open; close some or try again later");
    let body = serde_json::to_string(&error.body())?;
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 5\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    connection.write_all((head + &body).as_bytes()).await?;
    connection.shutdown().await?;
    // What the client has sent is read, or the system would throw the answer away with it.
    tokio::io::copy(&mut connection, &mut tokio::io::sink()).await.map(drop)
}

async fn drain(app: &App, grace: Duration) {
    // From here on nothing new is taken; a request that just passed the check is still finished.
    let service = app.drain();
    let running = app.running();
    running.close();
    tracing::info!(running = running.len(), grace_seconds = grace.as_secs(), "draining");
    if timeout(grace, running.wait()).await.is_ok() {
        if let Some(service) = &service {
            service.engine.drain();
        }
        return;
    }
    tracing::warn!(running = running.len(), "the grace period is over; ending what still runs");
    if let Some(service) = &service {
        service.engine.abort();
    }
    // The streams now end with an error event; give them a moment to write it.
    let _ = timeout(CLOSE_WITHIN, running.wait()).await;
}
