//! Who asks when: closed loops and open loops.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::{
    task::JoinSet,
    time::{sleep_until, timeout_at},
};

use crate::{
    answer::Answer,
    client::Client,
    load::Conversation,
    progress::Live,
    request::{Template, message},
};

/// What came of a measurement.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) answers: Vec<Answer>,
    /// Why requests failed.
    pub(crate) errors: Vec<String>,
    /// Requests that ran when the time was up, or never started.
    pub(crate) unfinished: usize,
    pub(crate) elapsed: Duration,
}

/// Asks requests of one server, until a deadline.
#[derive(Clone)]
pub(crate) struct Driver {
    pub(crate) client: Client,
    pub(crate) template: Arc<Template>,
    pub(crate) live: Arc<Live>,
    pub(crate) deadline: Instant,
    /// Whether the next turn's prompt has what the server answered instead of the load's own reply.
    pub(crate) keep_answers: bool,
}

/// Hands conversations out to the clients of a closed loop, until there are no more.
pub(crate) type Supply = Arc<dyn Fn() -> Option<Conversation> + Send + Sync>;

impl Driver {
    /// A closed loop: so many clients, each of which waits for its answer before it asks again.
    pub(crate) async fn closed_loop(&self, clients: usize, supply: &Supply) -> Result<Outcome> {
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let (driver, supply) = (self.clone(), supply.clone());
            tasks.spawn(async move {
                let mut outcome = Outcome::default();
                while let Some(conversation) = supply() {
                    outcome.add(driver.converse(&conversation, Instant::now()).await);
                }
                outcome
            });
        }
        collect(tasks).await
    }

    /// An open loop: each conversation begins when it is due, however many still run.
    pub(crate) async fn open_loop(&self, arrivals: Vec<(Duration, Conversation)>) -> Result<Outcome> {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (arrival, conversation) in arrivals {
            let driver = self.clone();
            tasks.spawn(async move {
                let due = start + arrival;
                sleep_until(due.min(driver.deadline).into()).await;
                driver.converse(&conversation, due).await
            });
        }
        collect(tasks).await
    }

    /// Asks turn after turn, each as soon as the one before is answered; a failure ends the conversation.
    pub(crate) async fn converse(&self, conversation: &Conversation, mut due: Instant) -> Outcome {
        let mut outcome = Outcome { unfinished: conversation.turns.len(), ..Outcome::default() };
        let mut messages: Vec<_> = conversation.system.iter().map(|text| message("system", text)).collect();
        for turn in &conversation.turns {
            messages.push(message("user", &turn.question));
            let body = self.template.body(&messages, turn.max_tokens);
            if due >= self.deadline {
                return outcome;
            }
            self.live.started();
            let asked = timeout_at(self.deadline.into(), self.client.ask(&body, due, &self.live)).await;
            self.live.ended(matches!(asked, Ok(Ok(_))));
            match asked {
                Ok(Ok(answer)) => {
                    let kept = self.keep_answers && !answer.content.is_empty();
                    messages.push(message("assistant", if kept { &answer.content } else { &turn.reply }));
                    outcome.answers.push(answer);
                }
                Ok(Err(error)) => {
                    outcome.errors.push(format!("{error:#}"));
                    outcome.unfinished -= 1;
                    return outcome;
                }
                Err(_) => return outcome,
            }
            outcome.unfinished -= 1;
            due = Instant::now();
        }
        outcome
    }
}

impl Outcome {
    /// Takes over all but the time.
    pub(crate) fn add(&mut self, other: Self) {
        self.answers.extend(other.answers);
        self.errors.extend(other.errors);
        self.unfinished += other.unfinished;
    }
}

async fn collect(mut tasks: JoinSet<Outcome>) -> Result<Outcome> {
    let start = Instant::now();
    let mut total = Outcome::default();
    while let Some(outcome) = tasks.join_next().await {
        total.add(outcome?);
    }
    total.elapsed = start.elapsed();
    Ok(total)
}
