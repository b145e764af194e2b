//! The shortest way to the end of a text that was begun, as far as a quick search finds it.
//!
//! The grammar engine can say which bytes may come next and whether the text is complete, not how far the end is. So the
//! search walks: at each place it takes the byte that most often leads to an end, and where that runs in circles it takes
//! what it has not taken yet.

use kimi_engine::GuideError;
use kimi_tokens::TokenId;
use llguidance::Matcher;

use crate::error::headline;
use crate::json_scanner::JsonScanner;
use crate::vocabulary::GuideVocabulary;

/// Walks that are tried. The first one always takes the preferred byte.
const WALKS: u64 = 4;
/// Bytes of a walk, whatever the tokens that are left.
const MAX_BYTES: usize = 8192;
/// Bytes in one string after which the preferred order has failed to end it.
const PATIENCE: u32 = 12;

/// After a value: close what can be closed, else go on to what is required. Before a value: the shortest kinds first,
/// and those that can nest last.
const STRUCTURE: &[u8] = b"}],:123456789\"0ntf[{-.";
/// In a string: end it.
const STRING: &[u8] = b"\"abcdefghijklmnopqrstuvwxyz0123456789";
/// In a string that does not end: separators first, since most patterns end a fixed number of them later.
const LOST: &[u8] = b"\"@.:-/T+_ ,0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSUVWXYZ";

/// Tokens that complete the text; empty when it is complete. More than `max_tokens` when that is the best that was found,
/// `None` when nothing was. A walk is given up after `stray` bytes of one string, or of a text that is not JSON. The matcher
/// is left as it was.
pub(crate) fn completion(
    matcher: &mut Matcher,
    scanner: Option<JsonScanner>,
    vocabulary: &GuideVocabulary,
    max_tokens: usize,
    stray: usize,
) -> Result<Option<Vec<TokenId>>, GuideError> {
    let max_bytes = (max_tokens.saturating_mul(8) + 256).min(MAX_BYTES);
    let mut best: Option<Vec<TokenId>> = None;
    for seed in 0..WALKS {
        let Some(bytes) = walk(matcher, scanner, vocabulary, (max_bytes, stray), seed)? else { continue };
        let tokens = vocabulary.trie().greedy_tokenize(&bytes);
        let fits = tokens.len() <= max_tokens;
        if best.as_ref().is_none_or(|best| tokens.len() < best.len()) {
            best = Some(tokens);
        }
        if fits {
            break;
        }
    }
    Ok(best)
}

/// One walk to the end; the bytes it took.
fn walk(
    matcher: &mut Matcher,
    mut scanner: Option<JsonScanner>,
    vocabulary: &GuideVocabulary,
    (max_bytes, stray): (usize, usize),
    seed: u64,
) -> Result<Option<Vec<u8>>, GuideError> {
    let mut path = Vec::new();
    let mut used = [0_u16; 256];
    let arrived = loop {
        if matcher.is_accepting().map_err(broken)? {
            break true;
        }
        // Of a string that was begun before the walk, only what the walk adds.
        let length = scanner.map_or(Some(u32::MAX), JsonScanner::string_length).unwrap_or(0) as usize;
        let astray = length.min(path.len());
        if path.len() >= max_bytes || astray > stray {
            break false;
        }
        let mut step = None;
        for byte in order(scanner, seed, &used) {
            let Some(token) = vocabulary.single_byte(byte) else { continue };
            if matcher.validate_tokens(&[token]).map_err(broken)? == 1 {
                step = Some((byte, token));
                break;
            }
        }
        let Some((byte, token)) = step else { break false };
        matcher.consume_token(token).map_err(broken)?;
        path.push(byte);
        used[usize::from(byte)] += 1;
        if let Some(scanner) = &mut scanner {
            scanner.push(byte);
        }
    };
    matcher.rollback(path.len()).map_err(broken)?;
    Ok(arrived.then_some(path))
}

/// All bytes, the most promising first. `used` counts what this walk has taken.
fn order(scanner: Option<JsonScanner>, seed: u64, used: &[u16; 256]) -> Vec<u8> {
    let length = scanner.map_or(Some(u32::from(used.iter().sum::<u16>())), JsonScanner::string_length);
    let lost = seed > 0 || length.is_some_and(|length| length > PATIENCE);
    let preferred = match length {
        None => STRUCTURE,
        Some(_) if lost => LOST,
        Some(_) => STRING,
    };
    let others = (b' '..=255).chain(0..b' ').filter(|byte| !preferred.contains(byte));
    let mut order: Vec<u8> = preferred.iter().copied().chain(others).collect();
    if lost && length.is_some() {
        // Something new leads out of a circle. The quote stays first: it ends the string.
        let turn = seed as usize * 7 % 64;
        order[1..65].rotate_left(turn);
        order[1..].sort_by_key(|byte| used[usize::from(*byte)]);
    } else if scanner.is_some_and(JsonScanner::in_number) {
        // The same digit for ever is a multiple of few numbers.
        order[3..].sort_by_key(|byte| used[usize::from(*byte)]);
    }
    order
}

pub(crate) fn broken(error: impl std::fmt::Display) -> GuideError {
    GuideError(headline(&error.to_string()).to_owned())
}
