//! The application: its configuration, its state, its routes and what surrounds them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tower_http::cors::CorsLayer;

use crate::auth::Caller;
use crate::file_store::FileStore;
use crate::remote_media::Fetcher;
use crate::state::{ReadyService, ServerState};
use crate::tenancy::{Tenancy, TenantKey};
use crate::{
    AllowedHosts, ApiError, ApiKeys, Contract, FileLimits, Limits, LoadProgress, Policy, RemoteMedia,
    Service, auth, gate, media, paced_body, routes, telemetry,
};

/// Renders all metrics in Prometheus' text format; the recorder belongs to the binary.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What the operator decided, fixed for the life of the process.
#[derive(Clone)]
pub struct AppConfig {
    /// Which rules hold for requests.
    pub contract: Contract,
    /// Who may ask.
    pub api_keys: ApiKeys,
    /// Requests begin with prefixes that earlier ones of the same caller computed.
    pub prefix_cache: bool,
    /// What keeps callers' cached prefixes apart, kept where these outlive the process. Without it, a new one: nothing that
    /// an earlier process left is found.
    pub cache_secret: Option<[u8; 32]>,
    /// The most answers to one prompt, the key `n`.
    pub max_n: usize,
    /// Answers carry `reasoning` beside `reasoning_content`.
    pub reasoning_alias: bool,
    /// Web pages of any origin may ask.
    pub cors: bool,
    /// The binary's version, for `/version`.
    pub version: &'static str,
    /// Where `/metrics` gets its text; without it the route answers 404.
    pub render_metrics: Option<MetricsText>,
    /// A stream that is silent for this long gets a comment.
    pub keep_alive: Duration,
    /// The largest body of a chat request, in bytes.
    pub chat_body_limit: usize,
    /// How much may be uploaded.
    pub files: FileLimits,
    /// Which hosts images and videos are fetched from; `None`: nothing is fetched.
    pub remote_media: Option<RemoteMedia>,
    /// Which names requests may be sent to.
    pub allowed_hosts: AllowedHosts,
    /// What a connection may take before it is cut off.
    pub limits: Limits,
}

impl AppConfig {
    /// The hosted service's limit for chat bodies: 100 MB.
    pub const CHAT_BODY_LIMIT: usize = 100 * 1000 * 1000;
    /// The largest body of requests that do not generate: 2 MiB.
    pub const BODY_LIMIT: usize = 2 << 20;
    /// Answers to one prompt: each costs as much as a request of its own.
    pub const MAX_N: usize = 8;
    /// How long a stream may be silent.
    pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
}

/// The application. Cheap to clone; all clones are the same one. It begins in the loading state and answers 503 there.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    config: AppConfig,
    policy: Policy,
    state: watch::Sender<ServerState>,
    started: Instant,
    running: TaskTracker,
    files: FileStore,
    fetcher: Option<Fetcher>,
    decoders: Arc<Semaphore>,
    tenancy: Tenancy,
}

impl App {
    /// An application that is loading.
    pub fn new(config: AppConfig) -> Self {
        let started = Instant::now();
        let (state, _) =
            watch::channel(ServerState::Loading { progress: LoadProgress::default(), since: started });
        let policy = Policy::of(config.contract);
        let files = FileStore::new(config.files);
        let tenancy = Tenancy::new(config.prefix_cache, config.cache_secret);
        let fetcher = config.remote_media.clone().map(Fetcher::new);
        let (running, decoders) = (TaskTracker::new(), media::decoders());
        Self(Arc::new(Inner { config, policy, state, started, running, files, fetcher, decoders, tenancy }))
    }

    /// Says how far loading is; `/health` repeats it.
    pub fn loading(&self, progress: LoadProgress) {
        let now = Instant::now();
        self.0.state.send_modify(|state| match state {
            ServerState::Loading { progress: before, since } => {
                if before.phase != progress.phase {
                    *since = now;
                }
                *before = progress;
            }
            // A report that arrives late must not undo what came after it.
            ServerState::Ready(_) | ServerState::Draining | ServerState::Failed(_) => {}
        });
    }

    /// Opens the API.
    pub fn ready(&self, service: Service) {
        let service = Arc::new(ReadyService::new(service, self.0.config.limits.queue_wait));
        self.0.state.send_modify(|state| {
            if matches!(state, ServerState::Loading { .. }) {
                *state = ServerState::Ready(service);
            }
        });
    }

    /// The model could not be loaded; `/health` says why until the process ends.
    pub fn failed(&self, reason: String) {
        self.0.state.send_replace(ServerState::Failed(reason));
    }

    /// The routes, ready for [`serve`](crate::serve()) or for a server of your own.
    pub fn router(&self) -> Router {
        let add = |router: Router<Self>, entry: routes::Entry| router.route(entry.path, entry.router);
        let router = routes::table()
            .into_iter()
            .fold(Router::new(), add)
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(from_fn_with_state(self.clone(), paced_body::pace))
            .layer(from_fn_with_state(self.clone(), auth::require_key))
            .layer(from_fn_with_state(self.clone(), gate::check));
        // Outside the key check: a browser asks for permission without a key.
        let router = if self.0.config.cors { router.layer(CorsLayer::permissive()) } else { router };
        router.layer(from_fn(telemetry::observe)).with_state(self.clone())
    }

    pub(crate) fn config(&self) -> &AppConfig {
        &self.0.config
    }

    /// What a caller is to the engine.
    pub(crate) fn tenant(&self, caller: Caller) -> TenantKey {
        self.0.tenancy.of(caller)
    }

    pub(crate) fn policy(&self) -> Policy {
        self.0.policy
    }

    /// Counts the answers that are being written, so that a stop can wait for them.
    pub(crate) fn running(&self) -> &TaskTracker {
        &self.0.running
    }

    pub(crate) fn files(&self) -> &FileStore {
        &self.0.files
    }

    /// What gets media from other hosts, where the operator allows that.
    pub(crate) fn fetcher(&self) -> Option<&Fetcher> {
        self.0.fetcher.as_ref()
    }

    /// Places to decode media at.
    pub(crate) fn decoders(&self) -> &Arc<Semaphore> {
        &self.0.decoders
    }

    pub(crate) fn started(&self) -> Instant {
        self.0.started
    }

    pub(crate) fn state(&self) -> ServerState {
        self.0.state.borrow().clone()
    }

    /// Closes the API and returns what served it, if it was open.
    pub(crate) fn drain(&self) -> Option<Arc<ReadyService>> {
        let mut served = None;
        self.0.state.send_modify(|state| match state {
            // Why it failed stays more useful than that it stops.
            ServerState::Failed(_) => {}
            ServerState::Loading { .. } | ServerState::Ready(_) | ServerState::Draining => {
                if let ServerState::Ready(service) = std::mem::replace(state, ServerState::Draining) {
                    served = Some(service);
                }
            }
        });
        served
    }

    /// What answers requests, or 503 with the reason why nothing does.
    pub(crate) fn service(&self) -> Result<Arc<ReadyService>, ApiError> {
        match &*self.0.state.borrow() {
            ServerState::Ready(service) => Ok(Arc::clone(service)),
            ServerState::Loading { .. } => {
                Err(ApiError::unavailable("The model is still loading; /health tells how far it is"))
            }
            ServerState::Draining => {
                Err(ApiError::unavailable("The server is stopping and takes no new requests"))
            }
            ServerState::Failed(_) => {
                Err(ApiError::unavailable("The model could not be loaded; /health tells why"))
            }
        }
    }
}

async fn not_found(request: Request) -> ApiError {
    ApiError::route_not_found(request.method().as_str(), request.uri().path())
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::method_not_allowed(request.method().as_str(), request.uri().path())
}
