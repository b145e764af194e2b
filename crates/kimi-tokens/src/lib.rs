//! The nouns every floor passes along: token ids and encoded prompts.
//!
//! This crate imports nothing, so that a scheduler, an engine and a text layer can speak about tokens without knowing
//! each other.

/// A token's id in the checkpoint's vocabulary. An alias: the tokenizer and the tensors both speak `u32`.
pub type TokenId = u32;

/// A prompt ready for the engine.
///
/// Media will travel beside the tokens once the vision tower is served; text-only prompts are complete as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// Token ids in order, markers included. Never empty when it comes from the prompt builder.
    pub tokens: Vec<TokenId>,
}
