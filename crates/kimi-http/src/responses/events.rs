//! An answer's events as the Responses API streams them: items that begin, grow and end.

use kimi_api::FinishReason;
use kimi_api::responses::{
    ContentPart, Event, IncompleteDetails, InputTokensDetails, ItemStatus, OutputItem, OutputTokensDetails,
    Response, ResponseError, ResponseStatus, ResponseUsage, StreamEvent,
};

use super::Echo;
use crate::ApiError;
use crate::dialect::{Dialect, Fold};
use crate::generation::AnswerEvent;

/// Tells one answer. The last event carries all of it.
pub(crate) struct ResponseEvents {
    /// The answer so far; while an item is open it is the last.
    response: Response,
    open: bool,
    request_id: String,
    /// The reasoning goes out as its own summary, for clients that read only that.
    summary: bool,
    sequence_number: u64,
}

/// Where an item and its part are.
struct Place {
    item_id: String,
    output_index: usize,
}

impl ResponseEvents {
    pub(crate) fn new(echo: Echo, request_id: String, created_at: u64, temperature: f32, top_p: f32) -> Self {
        let summary = echo.summary;
        let response = echo.begin(&request_id, created_at, temperature, top_p);
        Self { response, open: false, request_id, summary, sequence_number: 0 }
    }

    fn emit(&mut self, event: Event, out: &mut Vec<StreamEvent>) {
        out.push(StreamEvent { event, sequence_number: self.sequence_number });
        self.sequence_number += 1;
    }

    fn snapshot(&self) -> Box<Response> {
        Box::new(self.response.clone())
    }

    /// The open item, if there is one.
    fn item(&mut self) -> Option<&mut OutputItem> {
        self.response.output.last_mut().filter(|_| self.open)
    }

    fn place(&self) -> Place {
        let output_index = self.response.output.len().saturating_sub(1);
        let item_id = self.response.output.last().map(id).unwrap_or_default();
        Place { item_id, output_index }
    }

    /// An id for the item that comes next.
    fn next_id(&self, prefix: &str) -> String {
        format!("{prefix}_{}_{}", self.request_id, self.response.output.len())
    }

    fn start(&mut self, item: OutputItem, out: &mut Vec<StreamEvent>) {
        self.stop(ItemStatus::Completed, out);
        self.response.output.push(item.clone());
        self.open = true;
        let Place { item_id, output_index } = self.place();
        let part = part_of(&item, self.summary);
        self.emit(Event::OutputItemAdded { output_index, item }, out);
        match part {
            Some(part @ ContentPart::SummaryText { .. }) => {
                self.emit(Event::SummaryPartAdded { item_id, output_index, summary_index: 0, part }, out);
            }
            Some(part) => {
                self.emit(Event::ContentPartAdded { item_id, output_index, content_index: 0, part }, out);
            }
            None => {}
        }
    }

    /// Ends the open item.
    fn stop(&mut self, end: ItemStatus, out: &mut Vec<StreamEvent>) {
        let Place { item_id, output_index } = self.place();
        let Some(item) = self.item() else { return };
        let (OutputItem::Reasoning { status, .. }
        | OutputItem::Message { status, .. }
        | OutputItem::FunctionCall { status, .. }) = item;
        *status = end;
        let item = item.clone();
        self.open = false;
        for event in endings(&item, &item_id, output_index) {
            self.emit(event, out);
        }
        self.emit(Event::OutputItemDone { output_index, item }, out);
    }

    fn think(&mut self, delta: String, out: &mut Vec<StreamEvent>) {
        if !matches!(self.item(), Some(OutputItem::Reasoning { .. })) {
            let (id, status) = (self.next_id("rs"), ItemStatus::InProgress);
            let item = OutputItem::Reasoning { id, summary: Vec::new(), content: Vec::new(), status };
            self.start(item, out);
        }
        let as_summary = self.summary;
        if let Some(OutputItem::Reasoning { summary, content, .. }) = self.item() {
            append(if as_summary { summary } else { content }, &delta, || {
                if as_summary {
                    ContentPart::SummaryText { text: String::new() }
                } else {
                    ContentPart::ReasoningText { text: String::new() }
                }
            });
        }
        let Place { item_id, output_index } = self.place();
        let event = if as_summary {
            Event::SummaryTextDelta { item_id, output_index, summary_index: 0, delta }
        } else {
            Event::ReasoningTextDelta { item_id, output_index, content_index: 0, delta }
        };
        self.emit(event, out);
    }

    fn say(&mut self, delta: String, more: Vec<kimi_api::TokenLogprob>, out: &mut Vec<StreamEvent>) {
        if !matches!(self.item(), Some(OutputItem::Message { .. })) {
            let (id, status) = (self.next_id("msg"), ItemStatus::InProgress);
            self.start(OutputItem::Message { id, role: "assistant", content: Vec::new(), status }, out);
        }
        if let Some(OutputItem::Message { content, .. }) = self.item() {
            append(content, &delta, empty_text);
            if let Some(ContentPart::OutputText { logprobs, .. }) = content.last_mut() {
                logprobs.extend(more.iter().cloned());
            }
        }
        let Place { item_id, output_index } = self.place();
        self.emit(
            Event::OutputTextDelta { item_id, output_index, content_index: 0, delta, logprobs: more },
            out,
        );
    }

    fn argue(&mut self, delta: String, out: &mut Vec<StreamEvent>) {
        if let Some(OutputItem::FunctionCall { arguments, .. }) = self.item() {
            arguments.push_str(&delta);
        }
        let Place { item_id, output_index } = self.place();
        self.emit(Event::ArgumentsDelta { item_id, output_index, delta }, out);
    }

    fn finish(&mut self, reason: FinishReason, usage: kimi_api::Usage, out: &mut Vec<StreamEvent>) {
        self.response.usage = Some(usage_of(usage));
        if reason == FinishReason::Length {
            self.stop(ItemStatus::Incomplete, out);
            self.response.status = ResponseStatus::Incomplete;
            self.response.incomplete_details = Some(IncompleteDetails::MAX_OUTPUT_TOKENS);
            self.emit(Event::Incomplete { response: self.snapshot() }, out);
        } else {
            self.stop(ItemStatus::Completed, out);
            self.response.status = ResponseStatus::Completed;
            self.emit(Event::Completed { response: self.snapshot() }, out);
        }
    }
}

/// A whole response is what the last event carries.
#[derive(Default)]
pub(crate) struct ResponseFold(Option<Box<Response>>);

impl Fold<StreamEvent> for ResponseFold {
    type Whole = Box<Response>;

    fn take(&mut self, event: StreamEvent) {
        if let Event::Completed { response } | Event::Incomplete { response } = event.event {
            self.0 = Some(response);
        }
    }

    fn finish(self) -> Option<Box<Response>> {
        self.0
    }
}

impl Dialect for ResponseEvents {
    type Event = StreamEvent;
    type Fold = ResponseFold;

    fn name(event: &StreamEvent) -> &'static str {
        event.event.name()
    }

    fn begin(&mut self, _prompt_tokens: usize, out: &mut Vec<StreamEvent>) {
        self.emit(Event::Created { response: self.snapshot() }, out);
        self.emit(Event::InProgress { response: self.snapshot() }, out);
    }

    fn tell(&mut self, event: AnswerEvent, out: &mut Vec<StreamEvent>) {
        match event {
            // Only the route for plain text asks for it.
            AnswerEvent::Prompt(_) => {}
            AnswerEvent::Reasoning(text) => self.think(text, out),
            AnswerEvent::Content { text, logprobs } => self.say(text, logprobs.unwrap_or_default(), out),
            AnswerEvent::ToolCallStarted { id: call_id, name, .. } => {
                let (id, arguments) = (self.next_id("fc"), String::new());
                let status = ItemStatus::InProgress;
                self.start(OutputItem::FunctionCall { id, call_id, name, arguments, status }, out);
            }
            AnswerEvent::ToolArguments { json, .. } => self.argue(json, out),
            AnswerEvent::Finished { reason, usage, .. } => self.finish(reason, usage, out),
        }
    }

    fn fail(&mut self, error: ApiError, out: &mut Vec<StreamEvent>) {
        self.response.status = ResponseStatus::Failed;
        self.response.error = Some(ResponseError { code: "server_error", message: error.message });
        self.emit(Event::Failed { response: self.snapshot() }, out);
    }
}

fn id(item: &OutputItem) -> String {
    let (OutputItem::Reasoning { id, .. }
    | OutputItem::Message { id, .. }
    | OutputItem::FunctionCall { id, .. }) = item;
    id.clone()
}

fn empty_text() -> ContentPart {
    ContentPart::OutputText { text: String::new(), annotations: [], logprobs: Vec::new() }
}

/// The part that an item of this kind begins with, still empty.
fn part_of(item: &OutputItem, summary: bool) -> Option<ContentPart> {
    match item {
        OutputItem::Reasoning { .. } if summary => Some(ContentPart::SummaryText { text: String::new() }),
        OutputItem::Reasoning { .. } => Some(ContentPart::ReasoningText { text: String::new() }),
        OutputItem::Message { .. } => Some(empty_text()),
        OutputItem::FunctionCall { .. } => None,
    }
}

/// Adds to the one part an item has.
fn append(parts: &mut Vec<ContentPart>, more: &str, empty: impl FnOnce() -> ContentPart) {
    if parts.is_empty() {
        parts.push(empty());
    }
    if let Some(
        ContentPart::OutputText { text, .. }
        | ContentPart::ReasoningText { text }
        | ContentPart::SummaryText { text },
    ) = parts.last_mut()
    {
        text.push_str(more);
    }
}

/// What says that the parts of a finished item are complete.
fn endings(item: &OutputItem, item_id: &str, output_index: usize) -> Vec<Event> {
    let item_id = || item_id.to_owned();
    let parts = match item {
        OutputItem::FunctionCall { name, arguments, .. } => {
            let (name, arguments) = (name.clone(), arguments.clone());
            return vec![Event::ArgumentsDone { item_id: item_id(), output_index, name, arguments }];
        }
        OutputItem::Message { content, .. } => content.iter().chain(&[]),
        OutputItem::Reasoning { summary, content, .. } => summary.iter().chain(content),
    };
    let (content_index, summary_index) = (0, 0);
    let end = |part: &ContentPart| {
        let (item_id, again, part) = (item_id(), item_id(), part.clone());
        match part.clone() {
            ContentPart::OutputText { text, logprobs, .. } => [
                Event::OutputTextDone { item_id, output_index, content_index, text, logprobs },
                Event::ContentPartDone { item_id: again, output_index, content_index, part },
            ],
            ContentPart::ReasoningText { text } => [
                Event::ReasoningTextDone { item_id, output_index, content_index, text },
                Event::ContentPartDone { item_id: again, output_index, content_index, part },
            ],
            ContentPart::SummaryText { text } => [
                Event::SummaryTextDone { item_id, output_index, summary_index, text },
                Event::SummaryPartDone { item_id: again, output_index, summary_index, part },
            ],
        }
    };
    parts.flat_map(end).collect()
}

fn usage_of(usage: kimi_api::Usage) -> ResponseUsage {
    let reasoning_tokens = usage.completion_tokens_details.reasoning_tokens;
    ResponseUsage {
        input_tokens: usage.prompt_tokens,
        input_tokens_details: InputTokensDetails {
            cached_tokens: usage.cached_tokens,
            cache_write_tokens: 0,
        },
        output_tokens: usage.completion_tokens,
        output_tokens_details: OutputTokensDetails { reasoning_tokens },
        total_tokens: usage.total_tokens,
    }
}
