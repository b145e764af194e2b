//! All answers to one request: several generations, merged into one row of events.

use std::pin::pin;
use std::task::{Context, Poll};

use kimi_api::Usage;
use kimi_tokens::TokenId;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::ApiError;
use crate::generation::{AnswerEvent, Generation};
use crate::prepare::Prepared;
use crate::state::ReadyService;

/// An event of one of the answers.
#[derive(Debug, PartialEq)]
pub(crate) struct ChoiceEvent {
    /// Whose: from 0, the choices of the first prompt before those of the second.
    pub(crate) index: usize,
    /// What happened.
    pub(crate) event: AnswerEvent,
    /// Tokens since this choice's last event, when ids were asked for.
    pub(crate) token_ids: Option<Vec<TokenId>>,
}

/// Running answers. Dropping them cancels all of them within one step of the engine.
pub(crate) struct Choices {
    request_id: String,
    generations: Vec<Generation>,
    /// Choices of each prompt.
    per_prompt: usize,
    /// The token ids of each prompt, when they were asked for.
    prompt_token_ids: Option<Vec<Vec<TokenId>>>,
    shows_reasoning: bool,
    /// Choices that have not ended.
    open: usize,
    /// Who is asked first next time, so that nobody starves.
    turn: usize,
    usage: Usage,
}

impl Choices {
    /// Submits every choice of every prompt. All prompts have the same number of choices.
    pub(crate) fn submit(
        prompts: &[Prepared],
        service: &ReadyService,
        request_id: &str,
        running: &TaskTrackerToken,
    ) -> Result<Self, ApiError> {
        let mut generations = Vec::new();
        for prompt in prompts {
            for choice in 0..prompt.choices {
                let generation =
                    Generation::start(prompt, choice, service, request_id.to_owned(), running.clone())?;
                generations.push(generation);
            }
        }
        let ids = prompts.iter().map(|prompt| prompt.prompt_tokens().to_vec());
        Ok(Self {
            request_id: request_id.to_owned(),
            open: generations.len(),
            generations,
            per_prompt: prompts.first().map_or(1, |prompt| prompt.choices),
            prompt_token_ids: prompts.iter().any(|prompt| prompt.return_token_ids).then(|| ids.collect()),
            shows_reasoning: prompts.iter().any(Prepared::shows_reasoning),
            turn: 0,
            usage: Usage::default(),
        })
    }

    /// How many answers there are.
    pub(crate) fn len(&self) -> usize {
        self.generations.len()
    }

    /// The token ids of the prompt with this index, when they were asked for.
    pub(crate) fn prompt_token_ids(&self, prompt: usize) -> Option<&[TokenId]> {
        self.prompt_token_ids.as_ref()?.get(prompt).map(Vec::as_slice)
    }

    /// Tokens of the first prompt.
    pub(crate) fn prompt_tokens(&self) -> usize {
        self.generations.first().map_or(0, Generation::prompt_tokens)
    }

    /// Whether answers begin with reasoning that the client will see.
    pub(crate) fn shows_reasoning(&self) -> bool {
        self.shows_reasoning
    }

    /// What is said of an answer that has no end.
    pub(crate) fn broken_off(&self) -> ApiError {
        ApiError::internal(&self.request_id, "The answer broke off")
    }

    /// What the answers that have ended cost: every prompt once, all tokens.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    /// The next event of any answer, or `None` after the last one's end. A failure ends all of them. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Option<Result<ChoiceEvent, ApiError>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ChoiceEvent, ApiError>>> {
        if self.open == 0 {
            return Poll::Ready(None);
        }
        let count = self.generations.len();
        for index in (self.turn..self.turn + count).map(|index| index % count) {
            // A look, dropped when there is nothing yet: `next` loses no event.
            let Poll::Ready(Some(event)) = pin!(self.generations[index].next()).poll(context) else {
                continue;
            };
            self.turn = index + 1;
            return Poll::Ready(Some(self.note(index, event)));
        }
        Poll::Pending
    }

    fn note(&mut self, index: usize, event: Result<AnswerEvent, ApiError>) -> Result<ChoiceEvent, ApiError> {
        let event = event.inspect_err(|_| {
            self.generations.clear();
            self.open = 0;
        })?;
        if let AnswerEvent::Finished { usage, .. } = event {
            self.open -= 1;
            self.usage.add(usage, index.is_multiple_of(self.per_prompt));
        }
        let token_ids = self.generations[index].take_token_ids();
        Ok(ChoiceEvent { index, event, token_ids })
    }
}
