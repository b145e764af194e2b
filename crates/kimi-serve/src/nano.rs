//! kimi-nano, the default checkpoint, as part of the binary: the server answers without any file beside it.

macro_rules! embed {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../../models/kimi-nano/", $name)).as_slice())),*]
    };
}

/// The name under which the built-in checkpoint is served and reported.
pub(crate) const NAME: &str = "kimi-nano";

/// Every file of the checkpoint, by the name that a directory would give it.
pub(crate) static FILES: &[(&str, &[u8])] = embed![
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "tiktoken.model",
    "chat_template.jinja",
    "model.safetensors.index.json",
    "model-00001-of-000003.safetensors",
    "model-00002-of-000003.safetensors",
    "model-00003-of-000003.safetensors",
];
