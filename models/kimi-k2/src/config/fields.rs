//! Reads the fields of a JSON object so that every complaint names the field, what was expected and what is there.

use serde_json::{Map, Value};

use crate::CheckpointError;

/// A JSON object of `config.json` and the path that leads to it.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Empty for the file itself, `text_config.` and so on for what is inside.
    path: String,
}

impl<'a> Fields<'a> {
    /// The fields of `value`, which lies at `path` (empty for the root).
    pub(super) fn of(value: &'a Value, path: &str) -> Result<Self, CheckpointError> {
        let object = value.as_object().ok_or_else(|| {
            let name = if path.is_empty() { "config.json" } else { path };
            bad(name, "a JSON object", value)
        })?;
        let path = if path.is_empty() { String::new() } else { format!("{path}.") };
        Ok(Self { object, path })
    }

    /// The value of `name`; null counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// The object `name`, or `None`.
    pub(super) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, CheckpointError> {
        self.get(name).map(|value| Fields::of(value, &format!("{}{name}", self.path))).transpose()
    }

    /// A whole number at least 0, or `None`.
    pub(super) fn optional_usize(&self, name: &str) -> Result<Option<usize>, CheckpointError> {
        self.typed(name, "a whole number, 0 or more", |value| {
            value.as_u64().and_then(|number| usize::try_from(number).ok())
        })
    }

    /// A whole number at least 0 that must be there.
    pub(super) fn usize(&self, name: &str) -> Result<usize, CheckpointError> {
        self.required(name, "a whole number", self.optional_usize(name)?)
    }

    /// A whole number at least 0, with a default.
    pub(super) fn usize_or(&self, name: &str, default: usize) -> Result<usize, CheckpointError> {
        Ok(self.optional_usize(name)?.unwrap_or(default))
    }

    /// A number, or `None`.
    pub(super) fn optional_f64(&self, name: &str) -> Result<Option<f64>, CheckpointError> {
        self.typed(name, "a number", Value::as_f64)
    }

    /// A number that must be there.
    pub(super) fn f64(&self, name: &str) -> Result<f64, CheckpointError> {
        self.required(name, "a number", self.optional_f64(name)?)
    }

    /// A number, with a default.
    pub(super) fn f64_or(&self, name: &str, default: f64) -> Result<f64, CheckpointError> {
        Ok(self.optional_f64(name)?.unwrap_or(default))
    }

    /// A boolean, with a default.
    pub(super) fn bool_or(&self, name: &str, default: bool) -> Result<bool, CheckpointError> {
        Ok(self.typed(name, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A text, or `None`.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, CheckpointError> {
        self.typed(name, "a text", Value::as_str)
    }

    /// A list of texts; absent is empty.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<&'a str>, CheckpointError> {
        let texts = self.typed(name, "a list of texts", |value| {
            value.as_array()?.iter().map(Value::as_str).collect::<Option<Vec<_>>>()
        })?;
        Ok(texts.unwrap_or_default())
    }

    /// Token ids: one, a list, or none. Negative ids mean "no such token" and are dropped.
    pub(super) fn token_ids(&self, name: &str) -> Result<Vec<u32>, CheckpointError> {
        let ids = self.typed(name, "a token id or a list of token ids", |value| {
            let ids = match value {
                Value::Array(ids) => ids.iter().map(Value::as_i64).collect::<Option<Vec<_>>>()?,
                value => vec![value.as_i64()?],
            };
            ids.into_iter().filter(|&id| id >= 0).map(|id| u32::try_from(id).ok()).collect::<Option<Vec<_>>>()
        })?;
        Ok(ids.unwrap_or_default())
    }

    /// Accepts only `wanted` (or absence) for a field that selects an algorithm.
    pub(super) fn only(&self, name: &str, wanted: &Value) -> Result<(), CheckpointError> {
        match self.get(name) {
            Some(value) if value != wanted => Err(self.unsupported(name, wanted, value)),
            _ => Ok(()),
        }
    }

    /// Accepts only null or absence.
    pub(super) fn only_null(&self, name: &str) -> Result<(), CheckpointError> {
        self.get(name).map_or(Ok(()), |value| Err(self.unsupported(name, "null", value)))
    }

    /// Accepts only `wanted`; absence is an error too.
    pub(super) fn exactly(&self, name: &str, wanted: &Value) -> Result<(), CheckpointError> {
        self.required(name, &wanted.to_string(), self.get(name))?;
        self.only(name, wanted)
    }

    /// A value that means something this program does not do.
    pub(super) fn unsupported(
        &self,
        name: &str,
        wanted: impl std::fmt::Display,
        value: &Value,
    ) -> CheckpointError {
        bad(&format!("{}{name}", self.path), wanted, value)
            .advice("this kind of checkpoint is not supported; use one of the Kimi K2 family")
    }

    /// A value of the right type that cannot be right.
    pub(super) fn impossible(
        &self,
        name: &str,
        wanted: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> CheckpointError {
        bad(&format!("{}{name}", self.path), wanted, found)
            .advice("correct config.json or download the checkpoint again")
    }

    fn typed<T>(
        &self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.impossible(name, wanted, short(value)))
    }

    fn required<T>(&self, name: &str, wanted: &str, value: Option<T>) -> Result<T, CheckpointError> {
        value.ok_or_else(|| self.impossible(name, wanted, "nothing"))
    }
}

fn bad(field: &str, wanted: impl std::fmt::Display, found: impl std::fmt::Display) -> CheckpointError {
    CheckpointError::new(format!("unusable configuration: {field}"))
        .file("config.json")
        .expected(wanted)
        .found(found)
}

/// A value as it may be quoted in a message: the beginning is enough.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
