#![doc = include_str!("../README.md")]

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
