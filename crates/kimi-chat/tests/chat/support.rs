//! Vocabularies to test with, and where the real one lies.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kimi_chat::{Markers, Vocabulary};
use serde_json::{Value, json};

/// Kimi's own `tokenizer_config.json`.
pub(crate) const CONFIG: &[u8] = include_bytes!("../data/tokenizer_config.json");
/// Ranks of the real vocabulary.
const RANKS: usize = 163_584;

/// Kimi's own `tiktoken.model`, from the sources of the crate that packages it.
pub(crate) fn real_model() -> Vec<u8> {
    let output = Command::new(env!("CARGO"))
        // Without the filter, cargo would want the dependencies of every platform on disk.
        .args(["metadata", "--format-version=1", "--filter-platform", &host(), "--manifest-path"])
        .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let package =
        packages.iter().find(|package| package["name"] == "splintr-vocab-kimi").expect("the dependency");
    let manifest = PathBuf::from(package["manifest_path"].as_str().expect("a path"));
    std::fs::read(manifest.with_file_name("vocabs").join("kimi.tiktoken")).expect("the vocabulary's file")
}

/// The triple this machine compiles for.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned()
}

/// The real vocabulary, loaded once for all tests.
pub(crate) fn real() -> &'static (Arc<Vocabulary>, Markers) {
    static REAL: LazyLock<(Arc<Vocabulary>, Markers)> =
        LazyLock::new(|| with_markers(Vocabulary::from_tiktoken(&real_model(), CONFIG).expect("loads")));
    &REAL
}

/// The first ranks of `tiktoken.model`, as small checkpoints ship them.
pub(crate) fn prefix(model: &[u8], ranks: usize) -> Vec<u8> {
    model.split_inclusive(|&byte| byte == b'\n').take(ranks).flatten().copied().collect()
}

/// Kimi's config with the special ids moved down to begin at `ranks`.
pub(crate) fn config_for(ranks: usize) -> Vec<u8> {
    let config: Value = serde_json::from_slice(CONFIG).expect("JSON");
    let tokens = config["added_tokens_decoder"].as_object().expect("an object");
    let moved: serde_json::Map<String, Value> = tokens
        .iter()
        .map(|(id, token)| ((id.parse::<usize>().expect("an id") - RANKS + ranks).to_string(), token.clone()))
        .collect();
    serde_json::to_vec(&json!({ "added_tokens_decoder": moved })).expect("JSON")
}

/// `tiktoken.model` with these tokens in order of rank.
pub(crate) fn model_of(tokens: &[Vec<u8>]) -> Vec<u8> {
    let line = |(rank, token): (usize, &Vec<u8>)| format!("{} {rank}\n", STANDARD.encode(token));
    tokens.iter().enumerate().map(line).collect::<String>().into_bytes()
}

/// 256 bytes and nothing else: every text comes byte by byte.
pub(crate) fn bytes_only() -> &'static (Arc<Vocabulary>, Markers) {
    static BYTES: LazyLock<(Arc<Vocabulary>, Markers)> = LazyLock::new(|| {
        let model = model_of(&(0..=u8::MAX).map(|byte| vec![byte]).collect::<Vec<_>>());
        with_markers(Vocabulary::from_tiktoken(&model, &config_for(256)).expect("loads"))
    });
    &BYTES
}

fn with_markers(vocabulary: Vocabulary) -> (Arc<Vocabulary>, Markers) {
    let markers = Markers::resolve(&vocabulary).expect("Kimi's markers");
    (Arc::new(vocabulary), markers)
}
