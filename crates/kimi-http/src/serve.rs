//! Serving until told to stop, and stopping without cutting anybody off.

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::App;

/// How long connections may take to send their last bytes after every answer has ended.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Serves `app` on `listener` until `shutdown` resolves, then drains.
///
/// Draining: new requests are answered 503 while those that run go on for at most `grace`; then the engine is told to
/// abort, which ends the remaining streams with an error event; then the listener closes. Bind the listener before the
/// model is loaded, so that `/health` can report the progress.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> io::Result<()> {
    let close = CancellationToken::new();
    // A token is a small packet; waiting for more would only delay it.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "could not switch off Nagle's algorithm");
        }
    });
    let server = axum::serve(listener, app.router()).with_graceful_shutdown(close.clone().cancelled_owned());
    let stop = async {
        shutdown.await;
        drain(&app, grace).await;
        close.cancel();
        sleep(CLOSE_WITHIN).await;
    };
    tokio::select! {
        result = server.into_future() => result,
        () = stop => Ok(()),
    }
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
