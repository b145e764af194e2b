//! What the fuzz targets share: kimi-nano's vocabulary, and which panics are failures.

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

/// Lets panics in other people's code pass, where the fuzzer would end the process at each: kimi-chat survives those of image
/// decoders. One that nobody survives is found all the same: as a 5xx, or by unwinding out of the target.
pub fn let_decoders_panic() {
    let end = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let ours = panic.location().is_none_or(|place| !place.file().contains("/registry/"));
        if ours {
            end(panic);
        }
    }));
}
