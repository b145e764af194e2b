//! `/openapi.json`: what is served, in `OpenAPI` 3.1. The schemas come from the wire types and the routes from the router's
//! own table, so that neither can drift. `scripts/fuzz` sends requests that are made from it.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use kimi_api as api;
use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::{App, anthropic};

/// What goes in and out of one route.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    /// What it does, in a few words.
    pub(crate) summary: &'static str,
    /// The body it takes.
    pub(crate) takes: Takes,
    /// The body of a good answer.
    pub(crate) gives: Gives,
}

/// The body of a request.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    Nothing,
    /// JSON, by the name of its schema.
    Json(&'static str),
    /// A form with a file and its purpose.
    Upload,
}

/// The body of an answer.
#[derive(Clone, Copy)]
pub(crate) enum Gives {
    /// JSON, by the name of its schema.
    Json(&'static str),
    /// JSON; or, when asked for, server-sent events whose every `data:` but `[DONE]` has the second schema.
    Stream(&'static str, &'static str),
    /// Text.
    Text,
    /// A web page.
    Html,
    /// Bytes of a kind that is not known before.
    Bytes,
}

/// The description, made once.
static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

/// The same where media are fetched.
static FETCHING: LazyLock<Value> = LazyLock::new(|| {
    let mut document = DOCUMENT.clone();
    for place in ["anyOf/0", "anyOf/1/properties/url"] {
        let url = document.pointer_mut(&format!("/components/schemas/MediaUrl/{place}"));
        *url.expect("invariant: a URL, or an object with one") = json!({
            "type": "string",
            "description": "`data:image/png;base64,…`, `ms://ID` of an uploaded file, or `https://…` of a host that the \
                operator allows.",
            "pattern": "^([Dd][Aa][Tt][Aa]:|[Hh][Tt][Tt][Pp][Ss]://|ms://)",
        });
    }
    document
});

/// `GET /openapi.json`.
pub(crate) async fn openapi(State(app): State<App>) -> Json<&'static Value> {
    Json(if app.fetcher().is_some() { &FETCHING } else { &DOCUMENT })
}

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for entry in crate::routes::table() {
        // The router marks a parameter that may contain slashes.
        let path = entry.path.replace("{*", "{");
        let operation = describe(&path, entry.operation);
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[entry.method.to_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "kimi-serve",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Kimi K2 models over the hosted service's API and the extensions of self-hosted servers.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        // A key, where the operator asks for one.
        "security": [{"key": []}, {}],
    })
}

fn describe(path: &str, operation: Operation) -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let json = |name: &str| json!({"application/json": {"schema": reference(name)}});
    let good = match operation.gives {
        Gives::Json(name) => json(name),
        Gives::Stream(whole, chunk) => json!({
            "application/json": {"schema": reference(whole)},
            "text/event-stream": {"schema": reference(chunk)},
        }),
        Gives::Text => json!({"text/plain": {"schema": {"type": "string"}}}),
        Gives::Html => json!({"text/html": {"schema": {"type": "string"}}}),
        Gives::Bytes => json!({"*/*": {"schema": {"type": "string", "format": "binary"}}}),
    };
    let error = if anthropic::is_spoken_at(path) { "MessagesErrorBody" } else { "ErrorBody" };
    let mut described = json!({
        "summary": operation.summary,
        "responses": {
            "200": {"description": "What was asked for.", "content": good},
            "default": {"description": "What went wrong.", "content": json(error)},
        },
    });
    if path == "/health" {
        described["responses"]["503"] =
            json!({"description": "Requests are not served now.", "content": json("Health")});
    }
    match operation.takes {
        Takes::Nothing => {}
        Takes::Json(name) => described["requestBody"] = json!({"required": true, "content": json(name)}),
        Takes::Upload => described["requestBody"] = upload_form(),
    }
    let names = path.split('{').skip(1).filter_map(|part| part.split('}').next());
    let parameters: Vec<Value> = names
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}))
        .collect();
    if !parameters.is_empty() {
        described["parameters"] = json!(parameters);
    }
    described
}

fn upload_form() -> Value {
    let schema = json!({
        "type": "object",
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "purpose": {"enum": ["image", "video"]},
        },
        "required": ["file", "purpose"],
    });
    json!({"required": true, "content": {"multipart/form-data": {"schema": schema}}})
}

fn schemas() -> Map<String, Value> {
    let mut schemas = requests();
    add_answer::<api::ChatCompletion>("ChatCompletion", &mut schemas);
    add_answer::<api::ChatCompletionChunk<'static>>("ChatCompletionChunk", &mut schemas);
    add_answer::<api::Completion<'static>>("Completion", &mut schemas);
    add_answer::<api::anthropic::Message>("Message", &mut schemas);
    add_answer::<api::anthropic::StreamEvent>("MessageStreamEvent", &mut schemas);
    add_answer::<api::anthropic::TokenCount>("TokenCount", &mut schemas);
    add_answer::<api::anthropic::ErrorBody>("MessagesErrorBody", &mut schemas);
    add_answer::<api::responses::Response>("Response", &mut schemas);
    add_answer::<api::responses::StreamEvent>("ResponseStreamEvent", &mut schemas);
    add_answer::<api::TokenizeResponse>("TokenizeResponse", &mut schemas);
    add_answer::<api::DetokenizeResponse>("DetokenizeResponse", &mut schemas);
    add_answer::<api::TokenEstimate>("TokenEstimate", &mut schemas);
    add_answer::<api::BalanceResponse>("BalanceResponse", &mut schemas);
    add_answer::<api::ModelList>("ModelList", &mut schemas);
    add_answer::<api::Model>("Model", &mut schemas);
    add_answer::<api::FileObject>("FileObject", &mut schemas);
    add_answer::<api::FileList>("FileList", &mut schemas);
    add_answer::<api::FileDeleted>("FileDeleted", &mut schemas);
    add_answer::<api::VersionInfo>("VersionInfo", &mut schemas);
    add_answer::<api::LoadInfo>("LoadInfo", &mut schemas);
    add_answer::<api::ErrorBody>("ErrorBody", &mut schemas);
    let states = json!({"status": {"enum": ["ok", "loading", "draining", "failed"]}});
    let health = json!({"type": "object", "properties": states, "required": ["status"]});
    schemas.insert("Health".to_owned(), health);
    schemas.insert("OpenApi".to_owned(), json!({"type": "object", "required": ["openapi", "paths"]}));
    schemas
}

/// The schemas of requests, with those of everything in them.
fn requests() -> Map<String, Value> {
    let mut settings = SchemaSettings::draft2020_12();
    settings.contract = Contract::Deserialize;
    settings.definitions_path = "/components/schemas".into();
    let mut generator = SchemaGenerator::new(settings);
    generator.subschema_for::<api::ChatCompletionRequest>();
    generator.subschema_for::<api::CompletionRequest>();
    generator.subschema_for::<api::anthropic::MessagesRequest>();
    generator.subschema_for::<api::responses::ResponsesRequest>();
    generator.subschema_for::<api::TokenizeRequest>();
    generator.subschema_for::<api::DetokenizeRequest>();
    generator.take_definitions(true)
}

/// The schema of an answer, whole: what requests and answers share may look different in each.
fn add_answer<T: JsonSchema>(name: &str, schemas: &mut Map<String, Value>) {
    let mut settings = SchemaSettings::draft2020_12();
    settings.contract = Contract::Serialize;
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let schema = SchemaGenerator::new(settings).into_root_schema_for::<T>();
    let taken = schemas.insert(name.to_owned(), schema.into());
    assert!(taken.is_none(), "two schemas are called {name}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(value: &Value) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(reference)) = object.get("$ref") {
                        let name = reference.strip_prefix("#/components/schemas/").expect(reference);
                        assert!(DOCUMENT["components"]["schemas"].get(name).is_some(), "{reference}");
                    }
                    object.values().for_each(check);
                }
                Value::Array(items) => items.iter().for_each(check),
                _ => {}
            }
        }
        check(&DOCUMENT);
    }
}
