//! Where in a JSON text one is, as far as lengths and endings need to know it.

/// Characters after which a number may grow no further: no `f64` needs more, and longer ones overflow in clients.
const MAX_NUMBER: u8 = 24;
/// Digits of an exponent; with [`MAX_NUMBER`] every number stays finite and different from zero.
const MAX_EXPONENT_DIGITS: u8 = 2;

/// Follows a JSON text byte by byte. The text is known to be valid; this only remembers what kind of place it is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JsonScanner {
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Structure,
    String {
        escaped: bool,
        length: u32,
    },
    Number {
        length: u8,
        exponent: Option<u8>,
    },
}

impl JsonScanner {
    /// Takes the next byte.
    pub(crate) fn push(&mut self, byte: u8) {
        self.place = match self.place {
            Place::String { escaped: true, length } => {
                Place::String { escaped: false, length: length.saturating_add(1) }
            }
            Place::String { length, .. } => match byte {
                b'"' => Place::Structure,
                _ => Place::String { escaped: byte == b'\\', length: length.saturating_add(1) },
            },
            Place::Number { length, exponent } if is_number_byte(byte) => Place::Number {
                length: length.saturating_add(1),
                exponent: match exponent {
                    Some(digits) => Some(digits.saturating_add(u8::from(byte.is_ascii_digit()))),
                    None => matches!(byte, b'e' | b'E').then_some(0),
                },
            },
            Place::Structure | Place::Number { .. } => match byte {
                b'"' => Place::String { escaped: false, length: 0 },
                b'-' | b'0'..=b'9' => Place::Number { length: 1, exponent: None },
                _ => Place::Structure,
            },
        };
    }

    /// Takes more bytes.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.push(byte);
        }
    }

    pub(crate) fn in_number(self) -> bool {
        matches!(self.place, Place::Number { .. })
    }

    /// Bytes of the string it is in; `None` outside of strings.
    pub(crate) fn string_length(self) -> Option<u32> {
        match self.place {
            Place::String { length, .. } => Some(length),
            _ => None,
        }
    }

    /// Whether the number it is in would become longer than any client can read.
    pub(crate) fn number_overflows_with(mut self, bytes: &[u8]) -> bool {
        for &byte in bytes {
            if !self.in_number() {
                return false;
            }
            self.push(byte);
            if let Place::Number { length, exponent } = self.place
                && (length > MAX_NUMBER || exponent.is_some_and(|digits| digits > MAX_EXPONENT_DIGITS))
            {
                return true;
            }
        }
        false
    }
}

fn is_number_byte(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> JsonScanner {
        let mut scanner = JsonScanner::default();
        scanner.extend(text.as_bytes());
        scanner
    }

    #[test]
    fn strings_end_at_quotes_that_are_not_escaped() {
        assert_eq!(after(r#"{"a\"b"#).string_length(), Some(4));
        assert_eq!(after(r#"{"a\\""#).string_length(), None);
        assert_eq!(after(r#"{"1": "2"#).string_length(), Some(1));
    }

    #[test]
    fn numbers_stay_readable() {
        assert!(after("[1").in_number() && !after("[1,").in_number() && !after("[\"1").in_number());
        assert!(!after("[1").number_overflows_with(b"23"));
        assert!(after("[1e9").number_overflows_with(b"99"));
        assert!(after("[1e").number_overflows_with(b"999"));
        assert!(!after("[1e").number_overflows_with(b"-99"));
        assert!(after(&format!("[{}", "7".repeat(24))).number_overflows_with(b"7"));
        assert!(!after(&format!("[{}", "7".repeat(24))).number_overflows_with(b", 7"));
    }
}
