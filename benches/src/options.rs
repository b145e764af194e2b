//! Option values that clap does not have.

use clap::ValueEnum;
use kimi_kernels::Vectors;

/// The widest vectors to use.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Widest {
    Baseline,
    Avx2,
    AvxVnni,
    Avx512,
}

impl From<Widest> for Vectors {
    fn from(widest: Widest) -> Self {
        match widest {
            Widest::Baseline => Self::Baseline,
            Widest::Avx2 => Self::Avx2,
            Widest::AvxVnni => Self::AvxVnni,
            Widest::Avx512 => Self::Avx512,
        }
    }
}

/// A number above zero.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        Ok(number) => Err(format!("{number} is not above 0")),
        Err(error) => Err(error.to_string()),
    }
}
