//! Parsers of option values that clap does not have.

/// A number above zero.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        Ok(number) => Err(format!("{number} is not above 0")),
        Err(error) => Err(error.to_string()),
    }
}
