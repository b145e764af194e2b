//! The whole HTTP layer over a real connection, with an engine that speaks scripts instead of a model.

mod answers;
mod harness;
mod leaving;
mod operations;
mod streams;
mod validation;
