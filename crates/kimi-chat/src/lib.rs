//! Text to tokens and back: vocabulary, prompt builder, output parser.
