//! Cutting very long inputs before the regex sees them, as Kimi's reference tokenizer does.
//!
//! Texts of normal length come back in one piece. The cuts bound the work of the pre-tokenizer on hostile input (a
//! megabyte of spaces), and for such input they are part of the definition of its ids.

/// Longest piece, in characters.
const MAX_CHARS: usize = 400_000;
/// Longest run of only white space or only other characters, in characters.
const MAX_RUN_CHARS: usize = 25_000;

/// The pieces of `text` that are encoded one by one; they concatenate to `text`.
pub(crate) fn chunks(text: &str) -> Vec<&str> {
    // Bytes bound characters from above, so this is the path of nearly every text.
    if text.len() <= MAX_RUN_CHARS {
        return vec![text];
    }
    let mut pieces = Vec::new();
    let mut piece_start = 0;
    let mut chars_in_block = 0;
    let mut run_of_space = false;
    let mut run_chars = 0;
    for (at, c) in text.char_indices() {
        let space = is_space(c);
        let block_full = chars_in_block == MAX_CHARS;
        let run_full = run_chars == MAX_RUN_CHARS && space == run_of_space;
        if block_full || run_full {
            pieces.push(&text[piece_start..at]);
            piece_start = at;
            run_chars = 0;
        }
        // Blocks are counted from the start of the text, whatever was cut inside them.
        chars_in_block = if block_full { 1 } else { chars_in_block + 1 };
        run_chars = if space == run_of_space { run_chars + 1 } else { 1 };
        run_of_space = space;
    }
    pieces.push(&text[piece_start..]);
    pieces
}

/// White space as Python's `str.isspace` has it: Unicode's, and the four information separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_where_the_reference_does() {
        // Each text, and the lengths of its pieces in characters.
        let words = "ab ".repeat(200_000);
        let cases: [(String, Vec<usize>); 6] = [
            ("a".repeat(25_000), vec![25_000]),
            ("é".repeat(25_001), vec![25_000, 1]),
            (" ".repeat(60_000), vec![25_000, 25_000, 10_000]),
            (format!("{}b", " ".repeat(25_000)), vec![25_001]),
            (format!("x{}", "\u{1c}".repeat(25_001)), vec![25_001, 1]),
            (words, vec![400_000, 200_000]),
        ];
        for (text, lengths) in cases {
            let pieces = chunks(&text);
            assert_eq!(pieces.concat(), text);
            assert_eq!(pieces.iter().map(|piece| piece.chars().count()).collect::<Vec<_>>(), lengths);
        }
    }
}
