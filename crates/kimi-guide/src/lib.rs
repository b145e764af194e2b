#![doc = include_str!("../README.md")]

mod answer_guide;
mod cache;
mod closing;
mod compile;
mod error;
mod format;
mod grammar;
mod header;
mod json_scanner;
mod live_grammar;
mod logits;
mod plan;
mod schema;
mod vocabulary;

pub use compile::Guides;
pub use error::CompileError;
pub use format::AnswerFormat;
pub use grammar::Grammar;
pub use plan::{AnswerPlan, CallRule, CutFlag, GuidedAnswer, ToolRule};
