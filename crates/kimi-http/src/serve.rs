//! Serving until told to stop, and stopping without cutting anybody off.

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::App;

/// How long a connection may take to send a request's head, also when it is idle between requests.
const IDLE_FOR: Duration = Duration::from_secs(75);

/// Bytes of a request's head and of its body's pieces that are held at a time; a larger head is refused.
const READ_BUFFER: usize = 64 * 1024;

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
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_FOR).max_buf_size(READ_BUFFER);
    let open = GracefulShutdown::new();
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
        let service = TowerToHyperService::new(router.clone());
        let connection = open.watch(http.serve_connection(TokioIo::new(connection), service));
        // The task owns the connection and with it every answer on it; it ends when the client leaves.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
    drop(listener);
    let _ = timeout(CLOSE_WITHIN, open.shutdown()).await;
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
