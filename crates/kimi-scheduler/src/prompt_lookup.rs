//! Proposals without a draft model: what followed the last tokens when they stood in the sequence before.

use std::collections::HashMap;

use kimi_tokens::TokenId;

use crate::speculation::{Drafter, Proposal};

/// Tokens that must have stood there before, the longest match first.
const MATCH_LENGTHS: [usize; 3] = [4, 3, 2];

/// Tokens that one step may add to the index, so that a long prompt from the prefix cache holds up nobody: well under a
/// millisecond.
const CATCH_UP: usize = 4096;

/// An index of a sequence's runs of two to four tokens, extended as it grows: constant work a token, and about 50 bytes.
#[derive(Debug, Default)]
pub(crate) struct PromptLookup {
    /// By the hash of a run, the position behind its last occurrence. Two runs with one hash push each other out, which
    /// costs a proposal and nothing else.
    behind: HashMap<u32, u32>,
    /// Positions whose token is in the index as what follows a run.
    indexed: usize,
}

impl Drafter for PromptLookup {
    fn read(&mut self, tokens: &[TokenId]) {
        let end = tokens.len().min(self.indexed + CATCH_UP);
        for position in self.indexed..end {
            for length in MATCH_LENGTHS.into_iter().filter(|length| *length <= position) {
                self.behind.insert(hash(&tokens[position - length..position]), position as u32);
            }
        }
        self.indexed = end;
    }

    fn propose(&self, tokens: &[TokenId], most: usize) -> Option<Proposal> {
        if self.indexed < tokens.len() {
            return None;
        }
        MATCH_LENGTHS.into_iter().enumerate().find_map(|(grade, length)| {
            let run = &tokens[tokens.len().checked_sub(length)?..];
            let behind = *self.behind.get(&hash(run))? as usize;
            (tokens[behind - length..behind] == *run)
                .then(|| Proposal { tokens: continuation(tokens, behind, most), grade })
        })
    }
}

/// `most` tokens from `start` on. A run that overlaps its own repetition goes on in circles.
fn continuation(tokens: &[TokenId], start: usize, most: usize) -> Vec<TokenId> {
    let period = tokens.len() - start;
    (0..most).map(|index| tokens[start + index % period]).collect()
}

/// FNV-1a over the tokens, their number and a last mix.
fn hash(tokens: &[TokenId]) -> u32 {
    let start = 0xcbf2_9ce4_8422_2325 ^ tokens.len() as u64;
    let hash =
        tokens.iter().fold(start, |hash, token| (hash ^ u64::from(*token)).wrapping_mul(0x100_0000_01b3));
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, by looking at everything.
    fn slow(tokens: &[TokenId], most: usize) -> Option<Proposal> {
        MATCH_LENGTHS.into_iter().enumerate().find_map(|(grade, length)| {
            let run = &tokens[tokens.len().checked_sub(length)?..];
            let behind = (length..tokens.len()).rev().find(|end| tokens[end - length..*end] == *run)?;
            let mut text = tokens.to_vec();
            for index in 0..most {
                text.push(text[behind + index]);
            }
            Some(Proposal { tokens: text.split_off(tokens.len()), grade })
        })
    }

    proptest! {
        #[test]
        fn proposals_are_what_a_search_finds(
            tokens in prop::collection::vec(0..4_u32, 0..80), cut in 0..80_usize, most in 0..9_usize,
        ) {
            let mut lookup = PromptLookup::default();
            lookup.read(&tokens[..cut.min(tokens.len())]);
            for end in cut.min(tokens.len())..=tokens.len() {
                lookup.read(&tokens[..end]);
                prop_assert_eq!(lookup.propose(&tokens[..end], most), slow(&tokens[..end], most));
            }
        }
    }

    #[test]
    fn a_long_prompt_is_read_a_part_a_step() {
        let tokens = vec![7; 3 * CATCH_UP + 1];
        let mut lookup = PromptLookup::default();
        for _ in 0..3 {
            lookup.read(&tokens);
            assert_eq!(lookup.propose(&tokens, 2), None);
        }
        lookup.read(&tokens);
        assert_eq!(lookup.propose(&tokens, 2), Some(Proposal { tokens: vec![7, 7], grade: 0 }));
    }
}
