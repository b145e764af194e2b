//! What a rank may ask of its peers. Each rank holds a part of every layer; together they compute one step.

use std::fmt::Debug;

use candle_core::Tensor;
use kimi_kernels::KeptTensor;

use crate::ModelError;

/// A rank's way to the others. All ranks compute the same batches and ask for the same things in the same order.
pub trait Collective: Debug {
    /// This rank, below [`ranks`](Self::ranks).
    fn rank(&self) -> usize;

    /// How many there are.
    fn ranks(&self) -> usize;

    /// Adds up what all ranks have, in the order of the ranks: f32 of any shape, the same for all. Afterwards `x` is the sum,
    /// to the last bit the same everywhere.
    ///
    /// # Errors
    /// Another rank is gone.
    fn all_reduce_sum(&self, x: &Tensor) -> Result<(), ModelError>;

    /// Puts the columns of all ranks side by side: f32 `[rows, own columns]` to `[rows, all columns]`. The first rank gets
    /// them; the others get `None`.
    ///
    /// # Errors
    /// Another rank is gone.
    fn gather_columns(&self, x: KeptTensor) -> Result<Option<KeptTensor>, ModelError>;
}

/// One rank that holds everything.
#[derive(Clone, Copy, Debug)]
pub struct Solo;

impl Collective for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn ranks(&self) -> usize {
        1
    }

    fn all_reduce_sum(&self, _: &Tensor) -> Result<(), ModelError> {
        Ok(())
    }

    fn gather_columns(&self, x: KeptTensor) -> Result<Option<KeptTensor>, ModelError> {
        Ok(Some(x))
    }
}
