//! What the server can do right now: the listener is open long before the model is loaded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kimi_chat::{Markers, Vocabulary};
use kimi_engine::EngineHandle;
use kimi_guide::Guides;

use crate::ModelNames;

/// Where the server stands in its life.
#[derive(Clone, Debug)]
pub(crate) enum ServerState {
    /// The model is being loaded.
    Loading {
        /// How far it is.
        progress: LoadProgress,
        /// When loading began, for the estimate of the time left.
        since: Instant,
    },
    /// Requests are served.
    Ready(Arc<ReadyService>),
    /// The server stops: what runs is finished, nothing new is taken.
    Draining,
    /// The model could not be loaded; the process is about to end.
    Failed(String),
}

/// How far loading is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadProgress {
    /// What is being done, for people: "download", "load weights".
    pub phase: String,
    /// Bytes done in this phase.
    pub bytes_done: u64,
    /// Bytes of this phase; 0 when unknown.
    pub bytes_total: u64,
}

/// Everything that answers a request, given by the binary once the model is loaded.
#[derive(Clone)]
pub struct Service {
    /// Where generations go.
    pub engine: EngineHandle,
    /// Text to tokens and back.
    pub vocabulary: Arc<Vocabulary>,
    /// The special tokens of the vocabulary.
    pub markers: Markers,
    /// What the model is called.
    pub model: ModelCard,
}

/// What the model is called and who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// The names it answers to beside the built-in ones: those the operator gave, then the checkpoint's own. The first is
    /// the one `/v1/models` lists.
    pub names: Vec<String>,
    /// Who made it.
    pub owned_by: String,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// Whether it sees images and videos.
    pub vision: bool,
}

/// A [`Service`] with what is derived from it once.
#[derive(Clone)]
pub(crate) struct ReadyService {
    pub(crate) engine: EngineHandle,
    pub(crate) vocabulary: Arc<Vocabulary>,
    pub(crate) markers: Markers,
    pub(crate) model: ModelCard,
    pub(crate) names: ModelNames,
    /// Formats, compiled when they are first asked for.
    pub(crate) guides: Arc<Guides>,
    /// How long a request may wait for its turn.
    pub(crate) queue_wait: Option<Duration>,
}

impl ReadyService {
    pub(crate) fn new(service: Service, queue_wait: Option<Duration>) -> Self {
        let Service { engine, vocabulary, markers, model } = service;
        let names = ModelNames::new(&model.names);
        let guides = Arc::new(Guides::new(Arc::clone(&vocabulary), markers));
        Self { engine, vocabulary, markers, model, names, guides, queue_wait }
    }
}

impl std::fmt::Debug for ReadyService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadyService").field("model", &self.model).finish_non_exhaustive()
    }
}
