//! What an answer, or the arguments of a call, must look like.

use serde_json::Value;

/// A format as a request describes it.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerFormat {
    /// One JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema {
        /// The schema.
        schema: Value,
        /// The client said that everything in the schema must be enforced; otherwise keywords that cannot be are passed
        /// over.
        strict: bool,
    },
    /// A text that matches a regular expression as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A text of a grammar, in the Lark dialect of llguidance.
    Grammar(String),
}

impl AnswerFormat {
    /// Whether what it describes is JSON.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self, Self::JsonObject | Self::JsonSchema { .. })
    }

    /// Equal formats have equal texts: the key of the cache.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::JsonObject => "o".to_owned(),
            Self::JsonSchema { schema, strict } => format!("s{}{schema}", u8::from(*strict)),
            Self::Regex(pattern) => format!("r{pattern}"),
            Self::Choice(texts) => format!("c{}", Value::from(texts.clone())),
            Self::Grammar(grammar) => format!("g{grammar}"),
        }
    }
}
