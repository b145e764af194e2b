//! Every op against its reference in candle's own ops, on random numbers, odd sizes and views.

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
    pub(crate) fn begin() {}
}
