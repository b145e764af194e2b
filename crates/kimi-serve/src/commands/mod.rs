//! One file per subcommand.

pub(crate) mod chat;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod pull;
pub(crate) mod score;
pub(crate) mod serve;
pub(crate) mod tokenize;

use std::io::{self, Read};

/// The text of an argument, or all of standard input when it is absent or `-`.
fn text_or_stdin(argument: Option<String>) -> io::Result<String> {
    match argument {
        Some(text) if text != "-" => Ok(text),
        _ => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            Ok(text)
        }
    }
}
