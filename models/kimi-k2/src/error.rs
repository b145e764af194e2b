//! What can be wrong with a checkpoint, said in one line.

use std::fmt;

/// One problem of a checkpoint: what is wrong, where, what was expected, what was found, what to do.
///
/// Its text is exactly one line, because it is the last thing an operator reads before the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointError {
    /// The problem in a few words, such as "missing tensor".
    pub what: Box<str>,
    /// The file it was seen in.
    pub file: Option<Box<str>>,
    /// The tensor it concerns.
    pub tensor: Option<Box<str>>,
    /// What a good checkpoint has there.
    pub expected: Option<Box<str>>,
    /// What this one has.
    pub found: Option<Box<str>>,
    /// What the operator can do.
    pub advice: Option<Box<str>>,
    /// How many further problems were seen and left unsaid.
    pub more: usize,
}

impl CheckpointError {
    /// A problem in a few words; the other parts are added by the methods below.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into().into(),
            file: None,
            tensor: None,
            expected: None,
            found: None,
            advice: None,
            more: 0,
        }
    }

    /// Names the file.
    #[must_use]
    pub fn file(mut self, file: impl fmt::Display) -> Self {
        self.file = Some(file.to_string().into());
        self
    }

    /// Names the tensor.
    #[must_use]
    pub fn tensor(mut self, tensor: impl fmt::Display) -> Self {
        self.tensor = Some(tensor.to_string().into());
        self
    }

    /// Says what a good checkpoint has.
    #[must_use]
    pub fn expected(mut self, expected: impl fmt::Display) -> Self {
        self.expected = Some(expected.to_string().into());
        self
    }

    /// Says what this checkpoint has.
    #[must_use]
    pub fn found(mut self, found: impl fmt::Display) -> Self {
        self.found = Some(found.to_string().into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn advice(mut self, advice: impl fmt::Display) -> Self {
        self.advice = Some(advice.to_string().into());
        self
    }
}

impl std::error::Error for CheckpointError {}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |before: &str, parts: Vec<String>, after: &str| {
            if parts.is_empty() { String::new() } else { format!("{before}{}{after}", parts.join(", ")) }
        };
        let labelled = |label: &str, value: &Option<Box<str>>| value.as_ref().map(|v| format!("{label} {v}"));
        let place = [labelled("file", &self.file), labelled("tensor", &self.tensor)].into_iter().flatten();
        let facts =
            [labelled("expected", &self.expected), labelled("found", &self.found)].into_iter().flatten();
        let more = match self.more {
            0 => None,
            1 => Some("1 more problem like this".to_owned()),
            more => Some(format!("{more} more problems like this")),
        };
        let line = [
            self.what.to_string(),
            part(" (", place.collect(), ")"),
            part(": ", facts.collect(), ""),
            part("; ", self.advice.iter().map(ToString::to_string).collect(), ""),
            part(" (", more.into_iter().collect(), ")"),
        ]
        .concat();
        // Parts may quote file contents and messages of the system; the promise of one line is kept here.
        f.write_str(&line.replace(['\n', '\r'], " "))
    }
}
