//! The model's vocabulary in the form the grammar engine reads: a trie of the bytes of ordinary tokens.

use std::sync::Arc;

use kimi_chat::{Markers, Vocabulary};
use kimi_tokens::TokenId;
use llguidance::ParserFactory;
use llguidance::api::ParserLimits;
use toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

use crate::CompileError;

/// Lexer states one grammar may have, at one to two kilobytes each.
const MAX_LEXER_STATES: usize = 50_000;

/// Made once for a vocabulary and shared by all grammars.
pub(crate) struct GuideVocabulary {
    pub(crate) markers: Markers,
    pub(crate) factory: ParserFactory,
    tokens: TokEnv,
    /// The token of each single byte.
    single_bytes: Vec<Option<TokenId>>,
}

impl GuideVocabulary {
    pub(crate) fn new(vocabulary: &Vocabulary, markers: Markers) -> Result<Self, CompileError> {
        let words: Vec<Vec<u8>> = (0..vocabulary.len() as TokenId).map(|id| word(vocabulary, id)).collect();
        let mut single_bytes = vec![None; 256];
        for (id, word) in words.iter().enumerate() {
            if let [byte] = word.as_slice() {
                single_bytes[usize::from(*byte)] = Some(id as TokenId);
            }
        }
        let info = TokRxInfo::new(words.len() as u32, markers.im_end);
        // Without a tokenizer behind it the engine never forces a tokenization: the model may write a text in whatever
        // pieces it likes, and a mask alone decides which pieces are possible.
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices)
            .map_err(|error| CompileError::Refused(error.to_string()))?;
        factory.quiet();
        let defaults = ParserLimits::default();
        *factory.limits_mut() =
            ParserLimits { max_lexer_states: MAX_LEXER_STATES, verbose_errors: false, ..defaults };
        Ok(Self { markers, factory, tokens, single_bytes })
    }

    pub(crate) fn trie(&self) -> &TokTrie {
        self.tokens.tok_trie()
    }

    /// How many ids there are.
    pub(crate) fn len(&self) -> usize {
        self.trie().vocab_size()
    }

    /// The bytes of an ordinary token; none for a special one.
    pub(crate) fn bytes(&self, token: TokenId) -> &[u8] {
        if (token as usize) < self.len() { self.trie().token(token) } else { &[] }
    }

    pub(crate) fn single_byte(&self, byte: u8) -> Option<TokenId> {
        self.single_bytes[usize::from(byte)]
    }

    /// The tokens that end a message.
    pub(crate) fn ends(&self) -> [TokenId; 2] {
        self.markers.stop_tokens()
    }
}

/// Special tokens are no text. Neither is a token that begins with 0xFF, which no UTF-8 has and the engine uses for
/// special tokens of its own.
fn word(vocabulary: &Vocabulary, id: TokenId) -> Vec<u8> {
    let bytes = vocabulary.bytes(id);
    let is_text = !vocabulary.is_special(id) && bytes.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER);
    if is_text { bytes.to_vec() } else { Vec::new() }
}

impl std::fmt::Debug for GuideVocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuideVocabulary").field("len", &self.len()).finish_non_exhaustive()
    }
}
