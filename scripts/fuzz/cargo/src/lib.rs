//! What the fuzz targets share: kimi-nano's vocabulary.

use std::sync::{Arc, LazyLock};

use kimi_chat::{Markers, Vocabulary};

/// The smallest real vocabulary there is: merges, single bytes and every marker.
pub static VOCABULARY: LazyLock<Arc<Vocabulary>> = LazyLock::new(|| {
    let model = include_bytes!("../../../../models/kimi-nano/tiktoken.model");
    let config = include_bytes!("../../../../models/kimi-nano/tokenizer_config.json");
    Arc::new(Vocabulary::from_tiktoken(model, config).expect("kimi-nano's vocabulary"))
});

/// Its special tokens.
pub fn markers() -> Markers {
    Markers::resolve(&VOCABULARY).expect("all markers")
}
