//! Reading `tiktoken.model`: one `BASE64 RANK` line a token, plus the special tokens of `tokenizer_config.json`.

use std::collections::{BTreeMap, HashMap};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kimi_tokens::TokenId;
use serde::Deserialize;
use tiktoken_rs::CoreBPE;

use super::token_table::TokenTable;
use super::{Encoder, Vocabulary, VocabularyError};

/// Kimi's pre-tokenizer: words, numbers of up to three digits, punctuation, white space. Han characters go by
/// themselves, so a piece never mixes them with other letters. Alternatives in order of preference.
pub(crate) const PATTERN: &str = concat!(
    r"[\p{Han}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+",
    r"|\s+(?!\S)",
    r"|\s+",
);

/// Ids above the ranks that Kimi checkpoints set aside for special tokens.
const RESERVED: usize = 256;

const CONFIG_FILE: &str = "tokenizer_config.json";

/// The part of `tokenizer_config.json` that names tokens.
#[derive(Deserialize)]
pub(super) struct TokenizerConfig {
    #[serde(default)]
    pub(super) added_tokens_decoder: BTreeMap<TokenId, AddedToken>,
}

#[derive(Deserialize)]
pub(super) struct AddedToken {
    pub(super) content: String,
}

impl TokenizerConfig {
    pub(super) fn parse(json: &[u8]) -> Result<Self, VocabularyError> {
        serde_json::from_slice(json)
            .map_err(|error| VocabularyError::BadJson { file: CONFIG_FILE, reason: error.to_string() })
    }
}

/// See [`Vocabulary::from_tiktoken`].
pub(super) fn load(model: &[u8], config_json: &[u8]) -> Result<Vocabulary, VocabularyError> {
    let ranks = parse_ranks(model)?;
    check_bytes(&ranks)?;
    let mut table = TokenTable::default();
    for token in &ranks {
        table.push_ordinary(token);
    }
    let mut names = TokenizerConfig::parse(config_json)?.added_tokens_decoder;
    let reserved = ranks.len()..ranks.len() + RESERVED;
    for id in reserved.clone() {
        let name = names.remove(&(id as TokenId));
        table.push_special(name.as_ref().map(|token| token.content.as_str()), CONFIG_FILE)?;
    }
    if let Some((id, token)) = names.pop_first() {
        let (start, end) = (reserved.start as TokenId, reserved.end as TokenId);
        return Err(VocabularyError::MisplacedSpecial { name: token.content, id, start, end });
    }
    let encoder = ranks.into_iter().zip(0..).collect();
    // Special tokens stay out of the encoder: text must never become one.
    let bpe = CoreBPE::new(encoder, std::iter::empty().collect(), PATTERN)
        .expect("invariant: the constant pattern compiles");
    Ok(Vocabulary { table, encoder: Encoder::Tiktoken(Box::new(bpe)) })
}

/// Token bytes by rank; the lines may come in any order, but each rank exactly once.
fn parse_ranks(model: &[u8]) -> Result<Vec<Vec<u8>>, VocabularyError> {
    let mut by_rank: Vec<Option<Vec<u8>>> = Vec::new();
    let mut count = 0;
    for (index, line) in model.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let (token, rank) =
            parse_line(line).map_err(|reason| VocabularyError::BadLine { line: index + 1, reason })?;
        let slot = rank as usize;
        if slot >= by_rank.len() {
            by_rank.resize(slot + 1, None);
        }
        if by_rank[slot].replace(token).is_some() {
            return Err(VocabularyError::DuplicateRank { line: index + 1, rank });
        }
        count += 1;
    }
    if let Some(rank) = by_rank.iter().position(Option::is_none) {
        return Err(VocabularyError::MissingRank { rank, count });
    }
    Ok(by_rank.into_iter().flatten().collect())
}

/// The rank bound keeps a damaged number from asking for gigabytes.
const MAX_RANK: u32 = 1 << 22;

fn parse_line(line: &[u8]) -> Result<(Vec<u8>, u32), String> {
    let space = line.iter().position(|&byte| byte == b' ').ok_or("there is no space in it")?;
    let token = STANDARD.decode(&line[..space]).map_err(|error| format!("bad base64: {error}"))?;
    if token.is_empty() {
        return Err("the token is empty".to_owned());
    }
    let rank = String::from_utf8_lossy(&line[space + 1..]);
    match rank.parse::<u32>() {
        Ok(number) if number < MAX_RANK => Ok((token, number)),
        _ => Err(format!("`{rank}` is not a rank")),
    }
}

/// Every text must be spellable, and no token may have two ranks: the encoder relies on both.
fn check_bytes(ranks: &[Vec<u8>]) -> Result<(), VocabularyError> {
    let mut seen = HashMap::with_capacity(ranks.len());
    for (rank, token) in ranks.iter().enumerate() {
        if seen.insert(token.as_slice(), rank).is_some() {
            return Err(VocabularyError::DuplicateToken { rank });
        }
    }
    let missing: Vec<u8> = (0..=u8::MAX).filter(|byte| !seen.contains_key([*byte].as_slice())).collect();
    match missing.first() {
        None => Ok(()),
        Some(&first) => {
            Err(VocabularyError::MissingBytes { file: "tiktoken.model", missing: missing.len(), first })
        }
    }
}
