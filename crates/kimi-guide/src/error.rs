//! Why a format cannot be enforced. All of them are about one request, and every text may be shown to its sender.

use thiserror::Error;

/// A schema, regular expression or grammar that this server does not take.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CompileError {
    /// A limit that keeps one request from taking the server's time.
    #[error("{what} may be at most {limit}, not {found}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// The most that is taken.
        limit: usize,
        /// What was sent.
        found: usize,
    },
    /// A part of a schema is not what JSON Schema says it must be.
    #[error("at {at}: {why}")]
    Malformed {
        /// Where, as a path from the root (`#/properties/a`).
        at: String,
        /// What is wrong and what would be right.
        why: String,
    },
    /// `strict: true` was asked for and something in the schema would not be enforced.
    #[error("strict is true but this cannot be enforced: {0}; leave it out or do not set strict")]
    NotEnforced(String),
    /// The compiler's own words.
    #[error("{0}")]
    Refused(String),
    /// Nothing matches it.
    #[error("nothing can match it")]
    Unsatisfiable,
    /// Compiling took longer than it may.
    #[error("it is too complex: compiling it took longer than {0} seconds")]
    TooSlow(u64),
}

/// What the engine says when it panics, in words for people.
pub(crate) const GAVE_UP: &str = "the grammar engine gave up on it";

/// The first line of what the engine says; the rest is its own state. It catches its own panics and reports them as errors,
/// but what they say is for its authors.
pub(crate) fn headline(message: &str) -> &str {
    let line = message.lines().next().unwrap_or_default();
    if line.starts_with("panic: ") { GAVE_UP } else { line }
}
