//! From the bytes of tokens to text: a token may end in the middle of a character.

/// Joins token bytes into text and holds back an unfinished character, at most three bytes.
///
/// Whatever the split, the pieces concatenate to the lossy UTF-8 reading of all the bytes.
#[derive(Debug, Default)]
pub(crate) struct TextStream {
    held: Vec<u8>,
}

impl TextStream {
    /// Appends to `out` all text that is certain after these bytes.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut String) {
        let joined;
        let mut rest = if self.held.is_empty() {
            bytes
        } else {
            self.held.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.held);
            joined.as_slice()
        };
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    return;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    out.push_str(std::str::from_utf8(valid).expect("invariant: valid up to here"));
                    let Some(bad) = error.error_len() else {
                        self.held = after.to_vec();
                        return;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[bad..];
                }
            }
        }
    }

    /// Ends the text: an unfinished character becomes U+FFFD. The stream can be used again.
    pub(crate) fn finish(&mut self, out: &mut String) {
        if !self.held.is_empty() {
            self.held.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn loses_nothing_however_the_bytes_are_split(
            text in "\\PC{0,20}",
            noise in proptest::collection::vec(any::<u8>(), 0..8),
            cuts in proptest::collection::vec(1_usize..6, 1..40),
        ) {
            let mut bytes = text.into_bytes();
            bytes.extend(noise);
            let mut stream = TextStream::default();
            let mut out = String::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                stream.push(piece, &mut out);
                rest = after;
            }
            stream.finish(&mut out);
            prop_assert_eq!(out, String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn holds_an_unfinished_character_back() {
        let mut stream = TextStream::default();
        let mut out = String::new();
        stream.push(&"a語".as_bytes()[..3], &mut out);
        assert_eq!(out, "a");
        stream.push(&"語".as_bytes()[2..], &mut out);
        assert_eq!(out, "a語");
    }
}
