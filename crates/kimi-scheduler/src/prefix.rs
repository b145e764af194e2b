//! Names for what a block holds, so that equal beginnings of prompts are computed once.

use kimi_tokens::TokenId;
use sha2::{Digest, Sha256};

/// Who may share computed blocks with whom: requests find only blocks that were left under their own scope.
///
/// Derive it from a secret of the process and whatever separates tenants (an API key, a salt the client sent), so that
/// nobody can tell from the timing of an answer what others asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CacheScope(pub [u8; 32]);

/// Names the content of one full block and of everything before it: half of a SHA-256 over the name of the block before
/// (at first the scope) and the block's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockKey(pub [u8; 16]);

impl BlockKey {
    fn new(before: &[u8], tokens: &[TokenId]) -> Self {
        let mut hash = Sha256::new_with_prefix(before);
        for token in tokens {
            hash.update(token.to_le_bytes());
        }
        let digest = hash.finalize();
        Self(*digest.first_chunk().expect("invariant: a SHA-256 has 32 bytes"))
    }
}

/// The names of a sequence's full blocks, extended as it grows.
#[derive(Debug)]
pub(crate) struct KeyChain {
    scope: CacheScope,
    keys: Vec<BlockKey>,
}

impl KeyChain {
    pub(crate) fn new(scope: CacheScope) -> Self {
        Self { scope, keys: Vec::new() }
    }

    /// The names of the first `count` blocks of `tokens`, each of which is full.
    pub(crate) fn first(&mut self, count: usize, tokens: &[TokenId], block_size: usize) -> &[BlockKey] {
        for block in self.keys.len()..count {
            let tokens = &tokens[block * block_size..][..block_size];
            let before = self.keys.last().map_or(&self.scope.0[..], |key| &key.0[..]);
            self.keys.push(BlockKey::new(before, tokens));
        }
        &self.keys[..count]
    }
}
