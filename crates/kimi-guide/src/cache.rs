//! Compiled formats, kept while there is room.

use std::sync::Arc;

use lru::LruCache;

use crate::Grammar;

/// The least recently used go first. Bounded by bytes, not by entries: grammars differ by orders of magnitude, and grow.
pub(crate) struct GrammarCache {
    entries: LruCache<String, Arc<Grammar>>,
    max_bytes: usize,
}

impl GrammarCache {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { entries: LruCache::unbounded(), max_bytes }
    }

    /// The grammar compiled for this key, unless an answer broke it.
    pub(crate) fn get(&mut self, key: &str) -> Option<Arc<Grammar>> {
        if self.entries.peek(key)?.is_broken() {
            self.entries.pop(key);
            return None;
        }
        self.entries.get(key).cloned()
    }

    /// Adds a grammar and makes room for it.
    pub(crate) fn put(&mut self, key: String, grammar: Arc<Grammar>) {
        self.entries.put(key, grammar);
        let size = |(key, grammar): (&String, &Arc<Grammar>)| key.len() + grammar.bytes();
        let mut bytes: usize = self.entries.iter().map(size).sum();
        while bytes > self.max_bytes && self.entries.len() > 1 {
            let Some((key, grammar)) = self.entries.pop_lru() else { break };
            bytes -= (key.len() + grammar.bytes()).min(bytes);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
