//! The binary as a person and a client meet it.
#![expect(clippy::unwrap_used, reason = "the tests' helpers may panic like the tests themselves")]

mod cli;
mod engine_options;
mod exposure;
mod fake;
mod guided;
mod harness;
mod kv_disk;
mod operations;
