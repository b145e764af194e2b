//! Tests of kimi-chat through its public API: against the reference's goldens, its template, and slow independent code.

mod media;
mod output_parser;
mod prompt;
mod support;
mod template;
mod tool_calls;
mod tool_declarations;
mod vocabulary;
