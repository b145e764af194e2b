//! Text to token ids and token ids to bytes, for the vocabulary of one checkpoint.

mod byte_level;
mod chunks;
mod error;
mod tiktoken;
mod token_table;
mod tokenizer_json;

use kimi_tokens::TokenId;

pub use error::VocabularyError;

use token_table::TokenTable;

/// A checkpoint's vocabulary: byte-level BPE tokens, then the special tokens. Immutable and shared after start.
///
/// Text never becomes a special token ([`Vocabulary::encode_text`]); those enter a prompt as ids only, so that nobody
/// can forge a turn by typing its marker.
#[derive(Debug)]
pub struct Vocabulary {
    table: TokenTable,
    encoder: Encoder,
}

/// The library that splits and merges. Both are byte-level BPE; which one depends on the file the checkpoint has.
enum Encoder {
    Tiktoken(Box<tiktoken_rs::CoreBPE>),
    Tokenizers(Box<tokenizers::Tokenizer>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tiktoken(_) => "Tiktoken",
            Self::Tokenizers(_) => "Tokenizers",
        })
    }
}

impl Vocabulary {
    /// From the contents of `tiktoken.model` and `tokenizer_config.json`, as Kimi checkpoints ship them.
    ///
    /// The ranks 0..N are whatever the file holds; the 256 ids after them are special: those that
    /// `added_tokens_decoder` names, the others as `<|reserved_token_{id}|>`.
    pub fn from_tiktoken(model: &[u8], config_json: &[u8]) -> Result<Self, VocabularyError> {
        tiktoken::load(model, config_json)
    }

    /// From the contents of a `tokenizer.json` with byte-level BPE, and of `tokenizer_config.json` where there is one
    /// (it may name special tokens that the other file leaves out).
    pub fn from_tokenizer_json(json: &[u8], config_json: Option<&[u8]>) -> Result<Self, VocabularyError> {
        tokenizer_json::load(json, config_json)
    }

    /// The ids of `text` with special tokens off: `<|im_end|>` typed by a user becomes ordinary tokens.
    pub fn encode_text(&self, text: &str) -> Vec<TokenId> {
        let mut ids = Vec::with_capacity(text.len() / 3);
        for chunk in chunks::chunks(text) {
            match &self.encoder {
                Encoder::Tiktoken(bpe) => ids.extend(bpe.encode_ordinary(chunk)),
                Encoder::Tokenizers(tokenizer) => match tokenizer.encode_fast(chunk, false) {
                    Ok(encoding) => self.extend_ordinary(&mut ids, encoding.get_ids()),
                    // Byte-level BPE with all 256 bytes cannot fail; spelling the bytes keeps this total all the same.
                    Err(_) => self.spell(&mut ids, chunk.as_bytes()),
                },
            }
        }
        ids
    }

    /// Some files list special tokens among the ordinary ones too; text still must not become one.
    fn extend_ordinary(&self, ids: &mut Vec<TokenId>, encoded: &[TokenId]) {
        for &id in encoded {
            if self.is_special(id) {
                self.spell(ids, self.bytes(id));
            } else {
                ids.push(id);
            }
        }
    }

    fn spell(&self, ids: &mut Vec<TokenId>, bytes: &[u8]) {
        ids.extend(bytes.iter().filter_map(|&byte| self.table.single_byte(byte)));
    }

    /// The ids of `text` with special tokens parsed: for rendered prompts in tools and tests, never for what users
    /// write.
    pub fn encode_with_specials(&self, text: &str) -> Vec<TokenId> {
        let mut ids = Vec::new();
        let mut rest = text;
        while let Some((start, end, id)) = self.table.find_special(rest) {
            ids.extend(self.encode_text(&rest[..start]));
            ids.push(id);
            rest = &rest[end..];
        }
        ids.extend(self.encode_text(rest));
        ids
    }

    /// The bytes of a token: a part of a text, not always valid UTF-8. A special token gives its name. An id beyond
    /// the vocabulary (a model may have more rows than tokens) gives nothing.
    pub fn bytes(&self, id: TokenId) -> &[u8] {
        self.table.bytes(id)
    }

    /// The text of `ids`, special tokens by name, invalid UTF-8 as U+FFFD.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How many ids there are, the reserved ones included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Never true for a vocabulary that loaded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id of the special token with this exact name.
    pub fn special(&self, name: &str) -> Option<TokenId> {
        self.table.special(name)
    }

    /// Whether an id is outside ordinary text: a marker or a reserved id, whatever the config's `special` flag says.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.table.is_special(id)
    }
}
