//! The same comparisons with AVX2 and its dot products of bytes, on CPUs that have these and wider vectors.

#![cfg(target_arch = "x86_64")]

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "some results are exact")]
mod equality {
    mod attention;
    mod elementwise;
    mod gated_mlp;
    pub(crate) mod harness;
    mod linear;
    mod routing;
    mod vision;
    mod weight_part;

    /// Before the first op.
    pub(crate) fn begin() {
        kimi_kernels::use_vectors(kimi_kernels::Vectors::AvxVnni);
    }
}
