//! The same comparisons as on a CPU with none of the vectors that kernels are written for.

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
        kimi_kernels::use_vectors(kimi_kernels::Vectors::Baseline);
    }
}
