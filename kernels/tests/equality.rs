//! Every op against its reference in candle's own ops, on random numbers, odd sizes and views.

mod equality {
    mod attention;
    mod elementwise;
    pub(crate) mod harness;
    mod linear;
    mod routing;
}
