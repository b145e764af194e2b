//! What the routes that ask the model begin and end with.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use kimi_api::anthropic::MessagesRequest;
use kimi_api::responses::ResponsesRequest;
use kimi_api::{ChatCompletionRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest};
use kimi_chat::Conversation;
use kimi_tokens::TokenId;
use serde::de::DeserializeOwned;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::auth::Caller;
use crate::choices::Choices;
use crate::json_body::{self, Parsed};
use crate::prepare::{Desk, Prepared, encode};
use crate::remote_media::Fetcher;
use crate::sse::{self, Framing};
use crate::state::ReadyService;
use crate::telemetry::RequestId;
use crate::validate::{ChatJob, Notices, Prompt, Rules, conversation_of};
use crate::{ApiError, App, AppConfig, MediaRules};

/// A body that asks the model for something.
pub(crate) trait Question: DeserializeOwned + Send + 'static {
    /// Which model is asked, where the body says it.
    fn model(&self) -> Option<&str>;

    /// The largest body, in bytes.
    fn limit(config: &AppConfig) -> usize {
        config.chat_body_limit
    }
}

/// Bodies that must say which model, and those that may.
macro_rules! questions {
    ($($generating:ty),*; $($small:ty),*) => {
        $(impl Question for $generating {
            fn model(&self) -> Option<&str> {
                Some(&self.model)
            }
        })*
        $(impl Question for $small {
            fn model(&self) -> Option<&str> {
                self.model.as_deref()
            }

            fn limit(_: &AppConfig) -> usize {
                AppConfig::BODY_LIMIT
            }
        })*
    };
}

questions!(
    ChatCompletionRequest, CompletionRequest, MessagesRequest, ResponsesRequest;
    TokenizeRequest, DetokenizeRequest
);

/// A question that was read and asks a model this server has, and what it takes to answer it.
pub(crate) struct Asked<T>(pub(super) T, pub(super) Exchange);

impl<T: Question> FromRequest<App> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        // Before the state is read: a drain that begins now waits for this request.
        let running = app.running().token();
        let service = app.service()?;
        let extensions = request.extensions();
        let RequestId(request_id) = extensions.get().cloned().expect("invariant: every request has an id");
        let caller = extensions.get().copied().expect("invariant: who asks is known before the route is");
        let body = json_body::read(request, T::limit(app.config())).await?;
        let Parsed { value: question, unknown_switches } =
            json_body::parse_request::<T>(body, &service.names, &request_id).await?;
        question.model().map_or(Ok(()), |model| service.names.check(model))?;
        let app = app.clone();
        Ok(Self(question, Exchange { app, service, caller, request_id, unknown_switches, running }))
    }
}

/// What it takes to answer a request.
pub(super) struct Exchange {
    app: App,
    pub(super) service: Arc<ReadyService>,
    caller: Caller,
    pub(super) request_id: String,
    /// What the body says of thinking in words that nobody here knows.
    unknown_switches: Vec<String>,
    /// Keeps a draining server alive until the request is answered.
    running: TaskTrackerToken,
}

impl Exchange {
    /// What requests are checked against.
    pub(super) fn rules(&self) -> Rules<'_> {
        let Self { app, service, caller, .. } = self;
        Rules {
            policy: app.policy(),
            vocabulary: &service.vocabulary,
            tenant: app.tenant(*caller),
            max_n: app.config().max_n,
            reasoning_alias: app.config().reasoning_alias,
            media: self.media_rules(),
        }
    }

    fn media_rules(&self) -> MediaRules<'_> {
        let remote = self.app.fetcher().map(Fetcher::rules);
        MediaRules { vision: self.service.model.vision, remote }
    }

    /// What it takes to make the prompt.
    pub(super) fn desk(&self) -> Desk<'_> {
        let Self { app, service, caller, request_id, .. } = self;
        Desk { app, service, caller: *caller, request_id }
    }

    /// The conversation a chat request describes.
    pub(super) fn conversation(&self, request: ChatCompletionRequest) -> Result<Conversation, ApiError> {
        conversation_of(request, self.app.policy(), self.media_rules())
    }

    /// A prompt as tokens.
    pub(super) async fn encode(&self, prompt: Prompt) -> Result<Vec<TokenId>, ApiError> {
        Ok(encode(prompt, self.desk()).await?.tokens)
    }

    /// How many tokens a chat request's prompt has: built by the same code, so exactly what its usage will say.
    pub(super) async fn count(&self, request: ChatCompletionRequest) -> Result<usize, ApiError> {
        let conversation = self.conversation(request)?;
        Ok(self.encode(Prompt::Chat(Box::new(conversation))).await?.len())
    }

    /// Answers a job, whole or streamed. `framing` says in which words.
    pub(super) async fn answer(self, job: ChatJob, framing: impl Framing) -> Result<Response, ApiError> {
        let (stream, notices) = (job.style.stream, job.notices.clone());
        let prompt = Prepared::encode(job, self.desk()).await?;
        self.answer_all(&[prompt], stream, &notices, framing).await
    }

    /// Answers several prompts with the same number of choices each, as one; a header says what had no effect.
    ///
    /// Nothing here is spawned and left alone: this future owns the generations of whole answers and the returned body
    /// owns those of streamed ones, so a client that leaves cancels its request.
    pub(super) async fn answer_all(
        self,
        prompts: &[Prepared],
        stream: bool,
        notices: &Notices,
        framing: impl Framing,
    ) -> Result<Response, ApiError> {
        let Self { app, service, request_id, unknown_switches, running, .. } = self;
        let choices = Choices::submit(prompts, &service, &request_id, &running)?;
        // From here on each answer has a token of its own, and what runs is counted by them.
        drop(running);
        let mut response = if stream {
            sse::respond(choices, framing, app.config().keep_alive)
        } else {
            Json(framing.collect(choices).await?).into_response()
        };
        let mut notices = notices.clone();
        notices.unknown_switches(unknown_switches.iter().map(String::as_str));
        if let Some(notice) = notices.header().and_then(|notice| HeaderValue::try_from(notice).ok()) {
            response.headers_mut().insert(HeaderName::from_static("x-kimi-notice"), notice);
        }
        Ok(response)
    }
}
