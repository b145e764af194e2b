//! Reading `tokenizer.json` through the `tokenizers` crate, for checkpoints that ship that file instead.

use std::collections::{BTreeMap, HashMap};

use kimi_tokens::TokenId;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::tiktoken::TokenizerConfig;
use super::token_table::TokenTable;
use super::{Encoder, Vocabulary, VocabularyError, byte_level};

const FILE: &str = "tokenizer.json";

/// See [`Vocabulary::from_tokenizer_json`].
pub(super) fn load(json: &[u8], config_json: Option<&[u8]>) -> Result<Vocabulary, VocabularyError> {
    let mut file: Value = serde_json::from_slice(json).map_err(|error| bad_json(&error))?;
    require_byte_level(&file)?;
    let ordinary = ordinary_tokens(&file)?;
    let mut special = special_tokens(&file)?;
    if let Some(config_json) = config_json {
        for (id, token) in TokenizerConfig::parse(config_json)?.added_tokens_decoder {
            special.entry(id).or_insert(token.content);
        }
    }
    let table = build_table(&ordinary, &special)?;
    check_bytes(&table)?;

    // The library finds added tokens in any text it is given. Without them it cannot: text stays text.
    file["added_tokens"] = Value::Array(Vec::new());
    file["truncation"] = Value::Null;
    file["padding"] = Value::Null;
    let tokenizer: Tokenizer = serde_json::from_value(file).map_err(|error| bad_json(&error))?;
    Ok(Vocabulary { table, encoder: Encoder::Tokenizers(Box::new(tokenizer)) })
}

fn bad_json(reason: &dyn std::fmt::Display) -> VocabularyError {
    VocabularyError::BadJson { file: FILE, reason: reason.to_string() }
}

/// Only for byte-level BPE are a token's bytes known from its name.
fn require_byte_level(file: &Value) -> Result<(), VocabularyError> {
    let model = file["model"]["type"].as_str().unwrap_or("BPE");
    if model != "BPE" {
        return Err(VocabularyError::NotByteLevelBpe { found: format!("its model is {model}") });
    }
    let is_byte_level = |step: &Value| step["type"] == "ByteLevel";
    let step = &file["pre_tokenizer"];
    let steps = step["pretokenizers"].as_array();
    if is_byte_level(step) || steps.is_some_and(|steps| steps.iter().any(is_byte_level)) {
        return Ok(());
    }
    Err(VocabularyError::NotByteLevelBpe { found: "it has no ByteLevel pre-tokenizer".to_owned() })
}

/// Ids and byte-level names of `model.vocab`.
fn ordinary_tokens(file: &Value) -> Result<HashMap<TokenId, &str>, VocabularyError> {
    let vocab = file["model"]["vocab"].as_object().ok_or_else(|| bad_json(&"there is no model.vocab"))?;
    vocab
        .iter()
        .map(|(name, id)| {
            let id = id.as_u64().and_then(|id| TokenId::try_from(id).ok()).filter(|id| *id < MAX_ID);
            let id =
                id.ok_or_else(|| bad_json(&format!("the id of `{name}` in model.vocab is not an id")))?;
            Ok((id, name.as_str()))
        })
        .collect()
}

/// Ids and names of `added_tokens`.
fn special_tokens(file: &Value) -> Result<BTreeMap<TokenId, String>, VocabularyError> {
    let added = file["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    added
        .iter()
        .map(|token| {
            let id = token["id"].as_u64().and_then(|id| TokenId::try_from(id).ok()).filter(|id| *id < MAX_ID);
            let name = token["content"].as_str();
            id.zip(name.map(str::to_owned)).ok_or_else(|| bad_json(&"an added token lacks its id or content"))
        })
        .collect()
}

/// Keeps a damaged id from asking for gigabytes.
const MAX_ID: TokenId = 1 << 22;

/// Every id up to the highest: special tokens by name, ordinary ones by their bytes, gaps as reserved.
fn build_table(
    ordinary: &HashMap<TokenId, &str>,
    special: &BTreeMap<TokenId, String>,
) -> Result<TokenTable, VocabularyError> {
    let highest = ordinary.keys().chain(special.keys()).max().copied();
    let mut table = TokenTable::default();
    for id in 0..highest.map_or(0, |id| id + 1) {
        match (special.get(&id), ordinary.get(&id)) {
            (Some(name), _) => table.push_special(Some(name), FILE)?,
            (None, None) => table.push_special(None, FILE)?,
            (None, Some(name)) => {
                let bytes = byte_level::bytes_of(name).ok_or_else(|| VocabularyError::NotByteLevelBpe {
                    found: format!("its token `{name}` is not written in the byte-level alphabet"),
                })?;
                table.push_ordinary(&bytes);
            }
        }
    }
    Ok(table)
}

fn check_bytes(table: &TokenTable) -> Result<(), VocabularyError> {
    let missing: Vec<u8> = (0..=u8::MAX).filter(|&byte| table.single_byte(byte).is_none()).collect();
    match missing.first() {
        None => Ok(()),
        Some(&first) => Err(VocabularyError::MissingBytes { file: FILE, missing: missing.len(), first }),
    }
}
