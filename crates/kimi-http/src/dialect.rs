//! APIs whose streams are rows of typed events: the same answer, told in other words.

use kimi_api::Usage;
use serde::Serialize;

use crate::ApiError;
use crate::choices::{ChoiceEvent, Choices};
use crate::generation::AnswerEvent;
use crate::sse::Framing;

/// How one API tells an answer. A whole answer is the fold of the same events.
pub(crate) trait Dialect: Send + 'static {
    /// What the API's streams consist of.
    type Event: Serialize + Send;
    /// Adds them up.
    type Fold: Fold<Self::Event>;

    /// The event's name, for its `event:` line.
    fn name(event: &Self::Event) -> &'static str;
    /// Before the first event of the answer.
    fn begin(&mut self, prompt_tokens: usize, out: &mut Vec<Self::Event>);
    /// One event of the answer. `Finished` is the last.
    fn tell(&mut self, event: AnswerEvent, out: &mut Vec<Self::Event>);
    /// The answer breaks off.
    fn fail(&mut self, error: ApiError, out: &mut Vec<Self::Event>);
    /// What is sent when nothing has happened for a while; without it, a comment is.
    fn ping(&mut self) -> Option<Self::Event> {
        None
    }
}

/// A whole answer, from the events of a streamed one.
pub(crate) trait Fold<Event>: Default + Send {
    /// The answer.
    type Whole: Serialize;

    /// One event more.
    fn take(&mut self, event: Event);
    /// The whole; `None` when its end is missing.
    fn finish(self) -> Option<Self::Whole>;
}

/// A dialect as server-sent events, or as their sum.
pub(crate) struct Spoken<D: Dialect> {
    dialect: D,
    /// Reused for every event.
    events: Vec<D::Event>,
}

impl<D: Dialect> Spoken<D> {
    pub(crate) fn new(dialect: D) -> Self {
        Self { dialect, events: Vec::new() }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        for event in self.events.drain(..) {
            write_event(D::name(&event), &event, out);
        }
    }
}

impl<D: Dialect> Framing for Spoken<D> {
    type Whole = <D::Fold as Fold<D::Event>>::Whole;

    async fn collect(mut self, mut choices: Choices) -> Result<Self::Whole, ApiError> {
        let mut fold = D::Fold::default();
        self.dialect.begin(choices.prompt_tokens(), &mut self.events);
        while let Some(event) = choices.next().await {
            self.dialect.tell(event?.event, &mut self.events);
            self.events.drain(..).for_each(|event| fold.take(event));
        }
        fold.finish().ok_or_else(|| choices.broken_off())
    }

    fn begin(&mut self, choices: &Choices, out: &mut Vec<u8>) {
        self.dialect.begin(choices.prompt_tokens(), &mut self.events);
        self.write(out);
    }

    fn event(&mut self, event: ChoiceEvent, out: &mut Vec<u8>) {
        self.dialect.tell(event.event, &mut self.events);
        self.write(out);
    }

    fn end(&mut self, _usage: Usage, _out: &mut Vec<u8>) {}

    fn keep_alive(&mut self, out: &mut Vec<u8>) {
        match self.dialect.ping() {
            Some(ping) => write_event(D::name(&ping), &ping, out),
            None => out.extend_from_slice(b": keep-alive\n\n"),
        }
    }

    fn error(&mut self, error: ApiError, out: &mut Vec<u8>) {
        self.dialect.fail(error, &mut self.events);
        self.write(out);
    }
}

fn write_event(name: &str, event: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    crate::sse::write_data(event, out);
}
