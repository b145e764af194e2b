//! How deeply a JSON text is nested, found without building anything.

use crate::ApiError;

/// The deepest nesting of arrays and objects. A schema of 30 levels inside a request needs 64.
const MAX_DEPTH: usize = 64;

/// 400 when `json` is nested too deeply. Texts that are not JSON at all may pass: the parser judges them.
pub(crate) fn check(json: &[u8]) -> Result<(), ApiError> {
    let mut depth = 0_usize;
    let mut rest = json.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => rest = after_string(rest),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(ApiError::invalid(format!(
                "Invalid request: the body is nested more than {MAX_DEPTH} levels deep"
            )));
        }
    }
    Ok(())
}

/// What follows the string whose opening quote was just read.
fn after_string(mut rest: std::slice::Iter<'_, u8>) -> std::slice::Iter<'_, u8> {
    // Most bytes of a large body are inside of strings, so this is the part that must be quick.
    while let Some(length) = memchr::memchr2(b'"', b'\\', rest.as_slice()) {
        let found = rest.as_slice()[length];
        let skip = if found == b'\\' { length + 2 } else { length + 1 };
        rest = rest.as_slice().get(skip..).unwrap_or_default().iter();
        if found == b'"' {
            return rest;
        }
    }
    [].iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize, inside: &str) -> String {
        format!("{}{inside}{}", "[{\"a\":".repeat(depth / 2), "}]".repeat(depth / 2))
    }

    #[test]
    fn only_nesting_counts() {
        check(nested(64, "1").as_bytes()).unwrap();
        check(nested(66, "1").as_bytes()).unwrap_err();
        check(nested(100_000, "1").as_bytes()).unwrap_err();
        check(nested(64, "\"[[[{{{\\\"[[[\\\\\"").as_bytes()).unwrap();
        check("[],".repeat(1000).as_bytes()).unwrap();
        check(b"\"[[[\\").unwrap();
    }
}
