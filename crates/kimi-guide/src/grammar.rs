//! A compiled format, shared by all answers that must follow it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use llguidance::{Matcher, TokenParser};

use crate::vocabulary::GuideVocabulary;

/// A format that was compiled. Cheap to share; every answer walks through it with a state of its own.
pub struct Grammar {
    pub(crate) vocabulary: Arc<GuideVocabulary>,
    /// Nothing was read yet. Clones of it share the lexer, so that what one answer has explored is known to the next.
    pub(crate) fresh: TokenParser,
    pub(crate) is_json: bool,
    /// Tokens of the shortest text that was found.
    pub(crate) shortest: Option<usize>,
    pub(crate) not_enforced: Vec<String>,
    /// An answer broke it: it must be compiled anew.
    pub(crate) broken: AtomicBool,
}

impl Grammar {
    /// What of a schema is not enforced, in the engine's words.
    pub fn not_enforced(&self) -> &[String] {
        &self.not_enforced
    }

    /// How many tokens the shortest text has that was found; `None` when the search gave up.
    pub fn shortest(&self) -> Option<usize> {
        self.shortest
    }

    /// Bytes it holds now; it grows while it is used.
    pub(crate) fn bytes(&self) -> usize {
        // The engine does not tell the size of its tables; a matcher without its lexer is a few kilobytes.
        const FIXED: usize = 64 * 1024;
        FIXED + self.fresh.parser.lexer_stats().num_bytes
    }

    /// A matcher at the beginning of the text.
    pub(crate) fn matcher(&self) -> Matcher {
        Matcher::new(Ok(self.fresh.clone()))
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar")
            .field("is_json", &self.is_json)
            .field("shortest", &self.shortest)
            .finish_non_exhaustive()
    }
}
