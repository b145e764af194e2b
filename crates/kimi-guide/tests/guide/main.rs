//! Answers of adversaries: models that choose at random among what a guide allows.

mod answers;
mod compile;
mod harness;
mod schemas;
