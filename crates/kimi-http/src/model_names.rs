//! The names under which the one loaded checkpoint answers.

use crate::ApiError;

/// Names from the guides and services this model is known by, so that copied examples run unchanged.
const BUILT_IN: [&str; 6] = [
    "kimi-k2.6",
    THINKING,
    "kimi-k2-6",
    "moonshot/kimi-k2.6",
    "moonshotai/kimi-k2.6",
    "@cf/moonshotai/kimi-k2.6",
];

/// The one name whose users read the reasoning from `reasoning`.
const THINKING: &str = "kimi-k2.6-thinking";

/// A case-insensitive set of names; all mean the loaded checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct ModelNames {
    lowercase: Vec<String>,
}

impl ModelNames {
    /// The built-in names and `own`.
    pub(crate) fn new(own: &[String]) -> Self {
        let built_in = BUILT_IN.iter().map(|name| (*name).to_owned());
        Self { lowercase: built_in.chain(own.iter().map(|name| name.to_lowercase())).collect() }
    }

    /// 404 unless the checkpoint answers to `name`.
    pub(crate) fn check(&self, name: &str) -> Result<(), ApiError> {
        let wanted = name.to_lowercase();
        if self.lowercase.contains(&wanted) { Ok(()) } else { Err(ApiError::model_not_found(name)) }
    }

    /// Whether who asks for `name` expects the reasoning under its second key, `reasoning`, too.
    pub(crate) fn wants_reasoning_alias(name: &str) -> bool {
        name.eq_ignore_ascii_case(THINKING)
    }
}
