//! The bytes of every token, packed: one buffer for a vocabulary instead of 160,000 allocations.

use std::collections::HashMap;

use kimi_tokens::TokenId;

use super::VocabularyError;

/// Token bytes by id, and which ids are special.
#[derive(Debug, Default)]
pub(crate) struct TokenTable {
    bytes: Vec<u8>,
    /// End of each token in `bytes`; a token starts where the one before it ends.
    ends: Vec<usize>,
    special: Vec<bool>,
    single_bytes: HashMap<u8, TokenId>,
    by_name: HashMap<String, TokenId>,
    /// Names that start with a character, so that scanning a text costs a look-up only at such characters.
    by_first_char: HashMap<char, Vec<String>>,
}

impl TokenTable {
    /// Appends the next id as ordinary bytes.
    pub(crate) fn push_ordinary(&mut self, bytes: &[u8]) {
        if let [byte] = bytes {
            self.single_bytes.insert(*byte, self.len() as TokenId);
        }
        self.push(bytes, false);
    }

    /// Appends the next id as a special token; `None` gives it its reserved name.
    pub(crate) fn push_special(
        &mut self,
        name: Option<&str>,
        file: &'static str,
    ) -> Result<(), VocabularyError> {
        let id = self.len() as TokenId;
        let name = name.map_or_else(|| format!("<|reserved_token_{id}|>"), str::to_owned);
        self.push(name.as_bytes(), true);
        if let Some(first) = name.chars().next() {
            self.by_first_char.entry(first).or_default().push(name.clone());
        }
        match self.by_name.insert(name.clone(), id) {
            None => Ok(()),
            Some(first) => Err(VocabularyError::DuplicateSpecial { file, name, first, second: id }),
        }
    }

    fn push(&mut self, bytes: &[u8], special: bool) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.special.push(special);
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn bytes(&self, id: TokenId) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..end]
    }

    /// The ordinary token that is this one byte.
    pub(crate) fn single_byte(&self, byte: u8) -> Option<TokenId> {
        self.single_bytes.get(&byte).copied()
    }

    pub(crate) fn is_special(&self, id: TokenId) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    pub(crate) fn special(&self, name: &str) -> Option<TokenId> {
        self.by_name.get(name).copied()
    }

    /// The first special token spelled out in `text`: where it starts, where it ends, its id. The longest name wins.
    pub(crate) fn find_special(&self, text: &str) -> Option<(usize, usize, TokenId)> {
        text.char_indices().find_map(|(start, first)| {
            let names = self.by_first_char.get(&first)?;
            let named = names.iter().filter(|name| text[start..].starts_with(name.as_str()));
            let name = named.max_by_key(|name| name.len())?;
            Some((start, start + name.len(), self.by_name[name]))
        })
    }
}
