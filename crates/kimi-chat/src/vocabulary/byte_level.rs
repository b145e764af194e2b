//! The byte-level alphabet of `tokenizer.json` files: every byte as one printable character.
//!
//! GPT-2's table: the printable Latin-1 characters stand for themselves, the other 68 bytes are moved up to U+0100 and
//! beyond, in order.

/// The byte behind a character of the alphabet; `None` for any other character.
pub(crate) fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    match u8::try_from(code) {
        Ok(byte) if stands_for_itself(byte) => Some(byte),
        Ok(_) => None,
        Err(_) => {
            let index = (code - 0x100) as usize;
            (0..=u8::MAX).filter(|&byte| !stands_for_itself(byte)).nth(index)
        }
    }
}

/// The bytes behind a token of the alphabet; `None` when a character does not belong to it.
pub(crate) fn bytes_of(token: &str) -> Option<Vec<u8>> {
    token.chars().map(byte_of).collect()
}

fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_bijection_with_the_known_corners() {
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
        assert_eq!(byte_of('Ā'), Some(0));
        assert_eq!(byte_of('\u{143}'), Some(0xad));
        assert_eq!(byte_of('\u{144}'), None);
        assert_eq!(byte_of(' '), None);
        let mut bytes: Vec<u8> = ('\0'..='\u{400}').filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=u8::MAX).collect::<Vec<_>>());
    }
}
