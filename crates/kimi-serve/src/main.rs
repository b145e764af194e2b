//! `kimi-serve`: serves Kimi K2 checkpoints over an OpenAI-compatible API.
fn main() {}
