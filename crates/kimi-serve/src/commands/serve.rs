//! `kimi-serve serve`: the listener is bound first, so that `/health` can tell how the loading goes.

use std::{
    io::{IsTerminal, Write},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use kimi_engine::{EngineThread, metrics::Metric};
use kimi_http::{App, LoadProgress, ModelCard, Service};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{net::TcpListener, signal::unix, sync::oneshot};
use tracing::{info, warn};

use crate::{
    args::{LogFormat, ServeArgs},
    config, fake, load,
    progress::Progress,
};

pub(crate) fn run(args: ServeArgs) -> Result<()> {
    init_logging(args.log_format);
    let keys = config::api_keys(&args)?;
    let address = config::address(&args, &keys)?;
    raise_open_files(args.max_connections.get());
    let prometheus = install_metrics()?;
    let render = Arc::new({
        let prometheus = prometheus.clone();
        move || prometheus.render()
    });
    let secret = args.kv_disk.as_deref().map(config::cache_secret).transpose()?;
    let app = App::new(config::app(&args, keys, secret, render)?);
    let grace = Duration::from_secs(args.grace);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(http_threads()).enable_all().build()?;
    let result = runtime.block_on(async move {
        tokio::spawn(sum_up(prometheus));
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!(
                "cannot listen on {address}; is another server running there? --port chooses another port"
            )
        })?;
        let address = listener.local_addr()?;
        info!(%address, "listening; the model is being loaded");
        let (stop, stopped) = oneshot::channel();
        let life = tokio::spawn(live(app.clone(), args, address.to_string(), stop));
        kimi_http::serve(listener, app, async move { drop(stopped.await) }, grace).await?;
        life.await?
    });
    // A load that a signal interrupted may still run on the blocking pool; nothing waits for it.
    runtime.shutdown_background();
    result
}

/// Threads that read requests and write answers: few, since the cores are the model's, and what takes long is done elsewhere (the
/// blocking pool of `kimi-http`).
fn http_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 4).clamp(1, 16))
}

/// Histograms keep every sample until somebody adds them up: `/metrics` when it is read, and this when nobody reads it.
async fn sum_up(prometheus: PrometheusHandle) {
    let mut pause = tokio::time::interval(Duration::from_secs(5));
    loop {
        pause.tick().await;
        prometheus.run_upkeep();
    }
}

/// Loads the model, then waits for the end: a signal, or the engine's death. Dropping `stop` ends the HTTP side.
async fn live(app: App, args: ServeArgs, address: String, stop: oneshot::Sender<()>) -> Result<()> {
    let signal = shutdown_signal()?;
    tokio::pin!(signal);
    let loading = tokio::task::spawn_blocking({
        let app = app.clone();
        move || load_service(&app, &args)
    });
    let thread = tokio::select! {
        loaded = loading => loaded?.inspect_err(|error| app.failed(format!("{error:#}")))?,
        () = &mut signal => return Ok(()),
    };
    // Scripts wait for this line, so it goes to standard output.
    writeln!(std::io::stdout(), "ready: http://{address}/v1")?;
    let died = tokio::select! {
        ended = thread.ended() => ended,
        () = &mut signal => Ok(()),
    };
    if let Err(error) = &died {
        app.failed(error.to_string());
    }
    drop(stop);
    thread.ended().await?;
    died?;
    Ok(())
}

fn load_service(app: &App, args: &ServeArgs) -> Result<EngineThread> {
    let loaded = match &args.fake {
        Some(script) => fake::load(&args.model, &args.engine, script)?,
        None => load::load(&args.model, &args.engine, config::disk(args), report_to(app.clone()))?,
    };
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    let mut names = args.served_model_name.clone();
    names.push(loaded.name.clone());
    info!(model = loaded.name, limits = ?loaded.engine.limits(), "the model is ready");
    app.ready(Service {
        engine: loaded.engine,
        vocabulary: loaded.vocabulary,
        markers: loaded.markers,
        model: ModelCard { names, owned_by: "moonshot".to_owned(), created, vision: loaded.vision },
    });
    Ok(loaded.thread)
}

/// Tells `/health` and the terminal how far loading is.
fn report_to(app: App) -> impl Fn(&str, u64, u64) + Send + Sync + 'static {
    let progress = Mutex::new(Progress::logged("loading"));
    move |phase, bytes_done, bytes_total| {
        app.loading(LoadProgress { phase: phase.to_owned(), bytes_done, bytes_total });
        if let Ok(mut progress) = progress.lock() {
            progress.part(phase);
            progress.set(bytes_done, bytes_total);
        }
    }
}

/// Resolves on SIGTERM or Ctrl-C.
fn shutdown_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: draining"),
            _ = interrupt.recv() => info!("interrupted: draining"),
        }
    })
}

/// Every connection is an open file; many systems allow 1,024 unless asked.
fn raise_open_files(connections: usize) {
    // Files of the checkpoint, the log, the runtime.
    let wanted = connections as u64 + 256;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(allowed) if allowed < wanted => {
            warn!(
                allowed,
                wanted, "the system allows fewer open files than --max-connections needs (ulimit -n)"
            );
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "cannot raise the number of open files"),
    }
}

fn install_metrics() -> Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Suffix("_seconds".to_owned()),
            kimi_engine::metrics::SECONDS_BUCKETS,
        )?
        .set_buckets_for_metric(Matcher::Suffix("_tokens".to_owned()), kimi_engine::metrics::TOKENS_BUCKETS)?
        .install_recorder()?;
    let metrics = kimi_engine::metrics::METRICS.iter().chain(kimi_http::metrics::METRICS);
    metrics.for_each(Metric::describe);
    Ok(handle)
}

fn init_logging(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colours = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}
