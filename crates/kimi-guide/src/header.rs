//! The id that opens a tool call: `functions.NAME:IDX`, of a declared tool and with the right number.

use kimi_tokens::TokenId;

use crate::logits;
use crate::plan::ToolRule;
use crate::vocabulary::GuideVocabulary;

/// An id being written.
#[derive(Debug)]
pub(crate) struct Header {
    /// Position of each tool that is still possible, with what is left of its id.
    candidates: Vec<(usize, Vec<u8>)>,
}

impl Header {
    /// The ids of these tools for the call with this number.
    pub(crate) fn new<'a>(tools: impl Iterator<Item = (usize, &'a ToolRule)>, number: usize) -> Self {
        let id = |tool: &ToolRule| format!("functions.{}:{number}", tool.name).into_bytes();
        Self { candidates: tools.map(|(position, tool)| (position, id(tool))).collect() }
    }

    /// Forbids what cannot come next: any piece of any of the ids may, and `argument_begin` after a whole one.
    pub(crate) fn restrict(&self, row: &mut [f32], vocabulary: &GuideVocabulary) {
        if self.tool().is_some() {
            logits::allow_only(row, &[vocabulary.markers.tool_call_argument_begin]);
            return;
        }
        let mut allowed = vocabulary.trie().alloc_token_set();
        for (_, rest) in &self.candidates {
            for token in vocabulary.trie().all_prefixes(rest) {
                allowed.allow_token(token);
            }
        }
        logits::allow(row, &allowed, &[]);
    }

    /// Takes a piece of the id.
    pub(crate) fn accept(&mut self, token: TokenId, vocabulary: &GuideVocabulary) {
        let piece = vocabulary.bytes(token);
        self.candidates.retain_mut(|(_, rest)| match rest.strip_prefix(piece) {
            Some(after) => {
                *rest = after.to_vec();
                true
            }
            None => false,
        });
    }

    /// The tool, once its id is whole.
    pub(crate) fn tool(&self) -> Option<usize> {
        // No id is the beginning of another: all end in the same number after a colon.
        self.candidates.iter().find(|(_, rest)| rest.is_empty()).map(|(position, _)| *position)
    }
}
