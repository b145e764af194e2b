//! What this CPU could multiply: the limit that kernels are compared with.

use crate::avx512::Avx512;

/// What is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multiplication {
    /// f32 with f32.
    F32,
    /// bf16 with bf16, summed in f32.
    Bf16,
    /// Bytes, summed in 32 bits.
    Int8,
}

/// Operations a second, two for each multiply-add, that all threads together reach when they do nothing else, measured for
/// some hundredths of a second. `None` where there is no kernel of this kind.
pub fn peak(multiplication: Multiplication) -> Option<f64> {
    Avx512::detect()?.peak(multiplication)
}
