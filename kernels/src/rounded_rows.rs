//! Activations as products take them: as they are, and rounded for the weights' formats.

use crate::{
    Activations,
    bf16_rows::{self, Bf16Rows},
    cpu::RowsRef,
    quantized_rows::{self, QuantizedRows},
    weight_rows::{Product, WeightRows},
};

/// Rows, with a rounded copy for each format that a weight is multiplied in.
pub(crate) struct RoundedRows<'a> {
    exact: RowsRef<'a>,
    activations: Activations,
    int8: Option<QuantizedRows>,
    bf16: Option<Bf16Rows>,
}

impl<'a> RoundedRows<'a> {
    /// For products with these weights.
    pub(crate) fn new<'w>(
        exact: RowsRef<'a>,
        activations: Activations,
        weights: impl IntoIterator<Item = WeightRows<'w>>,
    ) -> Self {
        let (mut int8, mut bf16) = (false, false);
        for weight in weights {
            match weight.product(activations) {
                Product::Codes(..) => int8 = true,
                Product::Bf16Pairs(..) => bf16 = true,
                Product::Bf16(..) | Product::Widened => {}
            }
        }
        let int8 = int8.then(|| QuantizedRows::new(exact));
        let bf16 = bf16.then(|| Bf16Rows::new(exact));
        Self { exact, activations, int8, bf16 }
    }

    /// Some of the rows.
    pub(crate) fn pick(&'a self, rows: impl Iterator<Item = usize> + Clone) -> Inputs<'a> {
        let int8 = self.int8.as_ref().map(|int8| rows.clone().map(|row| int8.row(row)).collect());
        let bf16 = self.bf16.as_ref().map(|bf16| rows.clone().map(|row| bf16.row(row)).collect());
        Inputs {
            exact: rows.map(|row| self.exact.row(row)).collect(),
            activations: self.activations,
            int8: int8.unwrap_or_default(),
            bf16: bf16.unwrap_or_default(),
        }
    }
}

/// Rows to multiply, wherever they lie.
pub(crate) struct Inputs<'a> {
    pub(crate) exact: Vec<&'a [f32]>,
    pub(crate) activations: Activations,
    /// Empty when no weight needs them.
    pub(crate) int8: Vec<&'a [quantized_rows::Block]>,
    /// Empty when no weight needs them.
    pub(crate) bf16: Vec<&'a [bf16_rows::Block]>,
}

impl Inputs<'_> {
    pub(crate) fn len(&self) -> usize {
        self.exact.len()
    }
}
