//! The whole HTTP layer over a real connection, with an engine that speaks scripts instead of a model.
#![expect(clippy::unwrap_used, reason = "the tests' helpers may panic like the tests themselves")]

mod answers;
mod cache;
mod choices;
mod completions;
mod counting;
mod dialects;
mod exposure;
mod files;
mod forging;
mod garbage;
mod guided;
mod harness;
mod leaving;
mod media;
mod messages;
mod openapi;
mod operations;
mod partial;
mod queue;
mod remote_media;
mod responses;
mod safety;
mod streams;
mod validation;
