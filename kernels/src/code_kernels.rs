//! Which of the CPU's kernels multiply codes with activations of 8 bits: decided here.

#[cfg(target_arch = "aarch64")]
use crate::neon::Neon;
#[cfg(target_arch = "x86_64")]
use crate::{avx2::Avx2, avx512::Avx512};
use crate::{codes::CodeRows, output::Output, quantized_rows::Block, stored::Stored};

/// Proof that there are some.
#[derive(Clone, Copy)]
pub(crate) enum CodeKernels {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl CodeKernels {
    /// Those with the widest vectors. `None` on CPUs that have neither of them.
    pub(crate) fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return Avx512::detect().map(Self::Avx512).or_else(|| Avx2::detect().map(Self::Avx2));
        #[cfg(target_arch = "aarch64")]
        return Neon::detect().map(Self::Neon);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        None
    }

    /// `out[row, feature] = x[row] · weights[feature]`. `x` must not be empty. `next` is what will be multiplied afterwards, if that
    /// is known.
    pub(crate) fn multiply(
        self,
        x: &[&[Block]],
        weights: CodeRows<'_>,
        out: Output<'_>,
        next: Option<Stored>,
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.multiply_codes(x, weights, out, next),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.multiply_codes(x, weights, out, next),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(neon) => neon.multiply_codes(x, weights, out, next),
        }
    }
}
