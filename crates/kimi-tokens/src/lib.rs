#![doc = include_str!("../README.md")]

mod media;

pub use media::{ContentHash, Medium, PATCH_BYTES, PatchGrid, PromptMedium};

/// A token's id in the checkpoint's vocabulary. An alias: the tokenizer and the tensors both speak `u32`.
pub type TokenId = u32;

/// A prompt ready for the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// Token ids in order, markers included. Never empty when it comes from the prompt builder.
    pub tokens: Vec<TokenId>,
    /// Images and clips in the order of their positions, which do not overlap. The tokens there are placeholders that are
    /// never looked up: the vision tower's features take their place.
    pub media: Vec<PromptMedium>,
}

impl From<Vec<TokenId>> for EncodedPrompt {
    /// A prompt of text alone.
    fn from(tokens: Vec<TokenId>) -> Self {
        Self { tokens, media: Vec::new() }
    }
}
