//! A run against one server: what its measurements share.

use std::{
    io::{Write as _, stderr},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    client::Client,
    drive::{Driver, Outcome, Supply},
    load::{Conversation, Load},
    progress::{Live, Progress},
    report::OutputArgs,
    request::{RequestArgs, Template},
    stats::Slo,
    text::Tokens,
};

/// The server, and what all modes have in common, as options.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct BenchArgs {
    /// Where the API is, `/v1` included
    #[arg(long, default_value = "http://127.0.0.1:8000/v1", help_heading = "Server")]
    #[serde(skip)]
    pub(crate) base_url: String,
    /// The model to ask; the server's first one if not given
    #[arg(long, help_heading = "Server")]
    #[serde(skip)]
    pub(crate) model: Option<String>,
    /// Sent as a bearer token
    #[arg(long, env = "KIMI_API_KEY", hide_env_values = true, help_heading = "Server")]
    #[serde(skip)]
    pub(crate) api_key: Option<String>,
    /// What to call the server in tables and pages; the model's name if not given
    #[arg(long, help_heading = "Server")]
    #[serde(skip)]
    pub(crate) label: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) request: RequestArgs,
    /// Decides prompts, arrivals and sampling: the same seed asks the same
    #[arg(long, default_value_t = 1, help_heading = "Requests")]
    pub(crate) seed: u64,
    /// Conversations before each measurement that do not count
    #[arg(long, default_value_t = 4, help_heading = "Requests")]
    pub(crate) warmup: usize,
    /// Seconds after which a measurement ends, finished or not
    #[arg(long, default_value_t = 600, help_heading = "Requests")]
    pub(crate) time_limit: u64,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) slo: Slo,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) output: OutputArgs,
}

/// A server that answered, and the conversations that it has not seen yet.
pub(crate) struct Bench {
    pub(crate) client: Client,
    pub(crate) template: Arc<Template>,
    pub(crate) tokens: Tokens,
    pub(crate) slo: Slo,
    warmup: usize,
    time_limit: Duration,
    /// No conversation is asked twice, or a cache would answer for the model.
    next: AtomicU64,
}

impl Bench {
    /// Finds out whether the server is there, knows the model, and how it counts.
    pub(crate) async fn connect(args: &BenchArgs) -> Result<Self> {
        let client = Client::new(&args.base_url, args.api_key.as_deref())?;
        let model = client.model(args.model.as_deref()).await?;
        let template = Template { model, args: args.request.clone(), seed: args.seed };
        let tokens = client.measure_tokens(&template).await?;
        if tokens.is_none() {
            writeln!(stderr(), "the server does not count tokens: a word is taken for a token")?;
        }
        Ok(Self {
            client,
            template: Arc::new(template),
            tokens: tokens.unwrap_or(Tokens::UNKNOWN),
            slo: args.slo,
            warmup: args.warmup,
            time_limit: Duration::from_secs(args.time_limit),
            next: AtomicU64::new(0),
        })
    }

    /// Asks from now until the time limit.
    pub(crate) fn driver(&self) -> Driver {
        Driver {
            client: self.client.clone(),
            template: self.template.clone(),
            live: Arc::new(Live::default()),
            deadline: Instant::now() + self.time_limit,
            keep_answers: false,
        }
    }

    /// Indices of conversations that were not asked before.
    pub(crate) fn fresh(&self, count: usize) -> Range<u64> {
        let first = self.next.fetch_add(count as u64, Ordering::Relaxed);
        first..first + count as u64
    }

    pub(crate) fn conversation(&self, load: &Load, index: u64) -> Conversation {
        load.conversation(self.tokens, self.template.seed, index)
    }

    /// Conversations that were not asked before.
    pub(crate) fn conversations(&self, load: &Load, count: usize) -> Vec<Conversation> {
        self.fresh(count).map(|index| self.conversation(load, index)).collect()
    }

    /// Conversations that do not count, `clients` at a time: caches, connections and clocks settle.
    pub(crate) async fn warm_up(&self, load: &Load, clients: usize) -> Result<()> {
        if self.warmup > 0 {
            let driver = self.driver();
            let _progress = Progress::start(&driver.live, "warm-up", Some(self.warmup * load.turns));
            let clients = clients.min(self.warmup);
            driver.closed_loop(clients, &supply(self.conversations(load, self.warmup))).await?;
        }
        Ok(())
    }

    /// A closed loop of so many conversations, after a warm-up.
    pub(crate) async fn closed(
        &self,
        name: &str,
        load: &Load,
        clients: usize,
        count: usize,
    ) -> Result<Outcome> {
        self.warm_up(load, clients).await?;
        let supply = supply(self.conversations(load, count));
        let driver = self.driver();
        let _progress = Progress::start(&driver.live, name, Some(count * load.turns));
        driver.closed_loop(clients, &supply).await
    }
}

/// Hands conversations out, one after the other.
pub(crate) fn supply(conversations: Vec<Conversation>) -> Supply {
    let next = AtomicU64::new(0);
    Arc::new(move || conversations.get(next.fetch_add(1, Ordering::Relaxed) as usize).cloned())
}
