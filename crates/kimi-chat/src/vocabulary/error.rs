//! Why a vocabulary cannot be used.

/// One clear line per cause: the file, what was found, what was expected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VocabularyError {
    /// A line of `tiktoken.model` is not `BASE64 RANK`.
    #[error("tiktoken.model line {line}: {reason}; expected a base64 token, a space and its rank")]
    BadLine {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The same bytes have two ranks.
    #[error("tiktoken.model: the token of rank {rank} has a lower rank already; expected one rank a token")]
    DuplicateToken {
        /// The higher of its ranks.
        rank: usize,
    },
    /// The same rank names two tokens.
    #[error("tiktoken.model line {line}: rank {rank} was given before; each rank names exactly one token")]
    DuplicateRank {
        /// Of the second one, counted from 1.
        line: usize,
        /// The rank.
        rank: u32,
    },
    /// The ranks are not 0, 1, 2, … without a gap.
    #[error("tiktoken.model: rank {rank} is missing among {count} tokens; the file is incomplete")]
    MissingRank {
        /// The lowest absent rank.
        rank: usize,
        /// Tokens the file holds.
        count: usize,
    },
    /// A byte-level vocabulary must be able to spell every text.
    #[error("{file}: {missing} of the 256 single-byte tokens are missing (the first is 0x{first:02x})")]
    MissingBytes {
        /// Which file.
        file: &'static str,
        /// How many of the 256.
        missing: usize,
        /// The lowest missing byte.
        first: u8,
    },
    /// A JSON file does not parse or lacks what is read from it.
    #[error("{file}: {reason}")]
    BadJson {
        /// Which file.
        file: &'static str,
        /// The parser's words.
        reason: String,
    },
    /// A special token lies outside the room the model has for them.
    #[error("tokenizer_config.json: `{name}` has id {id}, outside the reserved ids {start}..{end}")]
    MisplacedSpecial {
        /// The token's name.
        name: String,
        /// Its id.
        id: u32,
        /// The first reserved id.
        start: u32,
        /// One past the last.
        end: u32,
    },
    /// Two special tokens share a name.
    #[error("{file}: the special token `{name}` has the ids {first} and {second}; expected one")]
    DuplicateSpecial {
        /// Which file.
        file: &'static str,
        /// The shared name.
        name: String,
        /// The one id.
        first: u32,
        /// The other.
        second: u32,
    },
    /// A `tokenizer.json` of another kind.
    #[error(
        "tokenizer.json: {found}; only byte-level BPE is supported, as Kimi and DeepSeek checkpoints use it"
    )]
    NotByteLevelBpe {
        /// What it is instead.
        found: String,
    },
    /// The chat format needs a token that the vocabulary does not name.
    #[error(
        "the vocabulary has no special token `{name}`, which Kimi's chat format needs; check added_tokens_decoder in tokenizer_config.json"
    )]
    MissingMarker {
        /// The absent one.
        name: &'static str,
    },
}
