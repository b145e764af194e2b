//! Names for what a block holds, so that equal beginnings of prompts are computed once.

use std::ops::Range;

use kimi_tokens::{ContentHash, PromptMedium, TokenId};
use sha2::{Digest, Sha256};

/// Who may share computed blocks with whom: requests find only blocks that were left under their own scope.
///
/// Derive it from a secret of the process and whatever separates tenants (an API key, a salt the client sent), so that
/// nobody can tell from the timing of an answer what others asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CacheScope(pub [u8; 32]);

/// Names the content of one full block and of everything before it: half of a SHA-256 over the name of the block before
/// (at first the scope), the block's tokens and, for each image or clip in it, its hash and where it begins. So equal tokens with
/// another image, or the same image elsewhere, have other names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockKey(pub [u8; 16]);

impl BlockKey {
    /// The name of the block that holds `tokens`, the first of them at position `start`.
    fn new<'a>(
        before: &[u8],
        start: usize,
        tokens: &[TokenId],
        media: impl Iterator<Item = &'a SeenAt>,
    ) -> Self {
        let mut hash = Sha256::new_with_prefix(before);
        for token in tokens {
            hash.update(token.to_le_bytes());
        }
        for SeenAt { positions, hash: content } in media {
            hash.update(content.0);
            // Relative to the block: the names before it tell where that is.
            hash.update((positions.start as i64 - start as i64).to_le_bytes());
        }
        let digest = hash.finalize();
        Self(*digest.first_chunk().expect("invariant: a SHA-256 has 32 bytes"))
    }
}

/// What is seen at some positions instead of their tokens.
#[derive(Debug)]
struct SeenAt {
    positions: Range<usize>,
    hash: ContentHash,
}

/// The names of a sequence's full blocks, extended as it grows.
#[derive(Debug)]
pub(crate) struct KeyChain {
    scope: CacheScope,
    media: Vec<SeenAt>,
    keys: Vec<BlockKey>,
}

impl KeyChain {
    pub(crate) fn new(scope: CacheScope, media: &[PromptMedium]) -> Self {
        let seen =
            |medium: &PromptMedium| SeenAt { positions: medium.positions.clone(), hash: medium.medium.hash };
        Self { scope, media: media.iter().map(seen).collect(), keys: Vec::new() }
    }

    /// The names of the first `count` blocks of `tokens`, each of which is full.
    pub(crate) fn first(&mut self, count: usize, tokens: &[TokenId], block_size: usize) -> &[BlockKey] {
        for block in self.keys.len()..count {
            let (start, end) = (block * block_size, (block + 1) * block_size);
            let before = self.keys.last().map_or(&self.scope.0[..], |key| &key.0[..]);
            let inside = |seen: &&SeenAt| seen.positions.start < end && start < seen.positions.end;
            let media = self.media.iter().filter(inside);
            self.keys.push(BlockKey::new(before, start, &tokens[start..end], media));
        }
        &self.keys[..count]
    }
}
