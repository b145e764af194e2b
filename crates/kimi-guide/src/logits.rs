//! Masks on a row of logits.

use kimi_tokens::TokenId;
use toktrie::SimpleVob;

/// Forbids these tokens.
pub(crate) fn forbid(logits: &mut [f32], tokens: &[TokenId]) {
    for &token in tokens {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Forbids all tokens but these. One that something else has forbidden before is allowed again: it is the only way on.
pub(crate) fn allow_only(logits: &mut [f32], tokens: &[TokenId]) {
    let kept = keep(logits, tokens);
    logits.fill(f32::NEG_INFINITY);
    restore(logits, &kept);
}

/// Forbids all tokens but those of the set and `extra`.
pub(crate) fn allow(logits: &mut [f32], set: &SimpleVob, extra: &[TokenId]) {
    let kept = keep(logits, extra);
    let words = set.as_slice();
    for (index, row) in logits.chunks_mut(32).enumerate() {
        match words.get(index).copied().unwrap_or(0) {
            u32::MAX => {}
            0 => row.fill(f32::NEG_INFINITY),
            bits => {
                for (bit, logit) in row.iter_mut().enumerate() {
                    if bits >> bit & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
    restore(logits, &kept);
}

fn keep(logits: &[f32], tokens: &[TokenId]) -> Vec<(TokenId, f32)> {
    let logit = |&token: &TokenId| logits.get(token as usize).map(|&logit| (token, logit));
    tokens.iter().filter_map(logit).collect()
}

fn restore(logits: &mut [f32], kept: &[(TokenId, f32)]) {
    for &(token, logit) in kept {
        logits[token as usize] = if logit.is_finite() { logit } else { 0.0 };
    }
}
