//! One file a route, and the table of all of them.

mod account;
mod chat;
mod completions;
mod exchange;
mod files;
mod health;
mod messages;
mod metrics;
mod models;
mod playground;
mod responses;
mod tokenize;
mod upload;

use std::time::{SystemTime, UNIX_EPOCH};

use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::App;
use crate::openapi::{Gives, Operation, Takes, openapi};

/// One method of one path.
pub(crate) struct Entry {
    /// In capitals.
    pub(crate) method: &'static str,
    /// As the router writes it.
    pub(crate) path: &'static str,
    /// What answers.
    pub(crate) router: MethodRouter<App>,
    /// What goes in and out.
    pub(crate) operation: Operation,
}

const MESSAGES: &str = "Answer, in the form of the Messages API";
const COUNT: &str = "Count the tokens of a message's prompt";

/// Everything that is served. The router and the description of the API are made from it.
pub(crate) fn table() -> Vec<Entry> {
    let chat = Takes::Json("ChatCompletionRequest");
    let chat_answer = Gives::Stream("ChatCompletion", "ChatCompletionChunk");
    let raw = Takes::Json("CompletionRequest");
    let message = Takes::Json("MessagesRequest");
    let message_answer = Gives::Stream("Message", "MessageStreamEvent");
    vec![
        post(
            "/v1/chat/completions",
            chat::create_chat_completion,
            "Answer a conversation",
            chat,
            chat_answer,
        ),
        post(
            "/v1/completions",
            completions::create_completion,
            "Continue a text",
            raw,
            Gives::Stream("Completion", "Completion"),
        ),
        post(
            "/v1/responses",
            responses::create_response,
            "Answer, in the form of the Responses API",
            Takes::Json("ResponsesRequest"),
            Gives::Stream("Response", "ResponseStreamEvent"),
        ),
        post("/v1/messages", messages::create_message, MESSAGES, message, message_answer),
        post("/v1/messages/count_tokens", messages::count_tokens, COUNT, message, Gives::Json("TokenCount")),
        // Where clients of the hosted service look for them.
        post("/anthropic/v1/messages", messages::create_message, MESSAGES, message, message_answer),
        post(
            "/anthropic/v1/messages/count_tokens",
            messages::count_tokens,
            COUNT,
            message,
            Gives::Json("TokenCount"),
        ),
        post(
            "/v1/tokenizers/estimate-token-count",
            tokenize::estimate,
            "Count the tokens of a chat request's prompt",
            chat,
            Gives::Json("TokenEstimate"),
        ),
        post(
            "/tokenize",
            tokenize::tokenize,
            "Text or conversation to tokens",
            Takes::Json("TokenizeRequest"),
            Gives::Json("TokenizeResponse"),
        ),
        post(
            "/detokenize",
            tokenize::detokenize,
            "Tokens to text",
            Takes::Json("DetokenizeRequest"),
            Gives::Json("DetokenizeResponse"),
        ),
        get("/v1/models", models::list_models, "The models", Gives::Json("ModelList")),
        // Names contain slashes.
        get("/v1/models/{*name}", models::retrieve_model, "One model", Gives::Json("Model")),
        post("/v1/files", files::upload, "Upload a file", Takes::Upload, Gives::Json("FileObject")),
        get("/v1/files", files::list, "The caller's files", Gives::Json("FileList")),
        get("/v1/files/{id}", files::retrieve, "One file", Gives::Json("FileObject")),
        delete("/v1/files/{id}", files::delete, "Delete a file", Gives::Json("FileDeleted")),
        get("/v1/files/{id}/content", files::content, "The bytes of a file", Gives::Bytes),
        get("/v1/users/me/balance", account::balance, "A balance of nothing", Gives::Json("BalanceResponse")),
        get("/", playground::playground, "A page to try it in", Gives::Html),
        get("/health", health::health, "Whether requests are served", Gives::Json("Health")),
        get("/load", health::load, "How busy the server is", Gives::Json("LoadInfo")),
        get("/version", health::version, "Which server this is", Gives::Json("VersionInfo")),
        get("/metrics", metrics::metrics, "Metrics for Prometheus", Gives::Text),
        get("/openapi.json", openapi, "This description", Gives::Json("OpenApi")),
    ]
}

fn post<T: 'static, H: Handler<T, App>>(
    path: &'static str,
    handler: H,
    summary: &'static str,
    takes: Takes,
    gives: Gives,
) -> Entry {
    let operation = Operation { summary, takes, gives };
    Entry { method: "POST", path, router: on(MethodFilter::POST, handler), operation }
}

fn get<T: 'static, H: Handler<T, App>>(
    path: &'static str,
    handler: H,
    summary: &'static str,
    gives: Gives,
) -> Entry {
    bodiless("GET", path, on(MethodFilter::GET, handler), summary, gives)
}

fn delete<T: 'static, H: Handler<T, App>>(
    path: &'static str,
    handler: H,
    summary: &'static str,
    gives: Gives,
) -> Entry {
    bodiless("DELETE", path, on(MethodFilter::DELETE, handler), summary, gives)
}

fn bodiless(
    method: &'static str,
    path: &'static str,
    router: MethodRouter<App>,
    summary: &'static str,
    gives: Gives,
) -> Entry {
    Entry { method, path, router, operation: Operation { summary, takes: Takes::Nothing, gives } }
}

/// Now.
fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
