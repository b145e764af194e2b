//! In place of `avx512.rs` on CPUs that never have it, so that who asks for it need not know which CPU it is. Nothing here is ever
//! called: there is no proof.

#![expect(clippy::unused_self, reason = "the functions of `avx512.rs`")]

use half::bf16;

use crate::{bf16_rows, cpu::RowsRef, output::Output, peak::Multiplication, quantized_rows, stored::Stored};

/// No value is one.
#[derive(Clone, Copy)]
pub(crate) enum Avx512 {}

/// What its tiles multiply with.
#[expect(dead_code, reason = "nobody multiplies")]
pub(crate) enum Rows<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u8]),
}

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        None
    }

    pub(crate) fn has_bf16(self) -> bool {
        match self {}
    }

    pub(crate) fn has_fast_bf16(self) -> bool {
        match self {}
    }

    pub(crate) fn takes_product_bf16(self, _: usize) -> bool {
        match self {}
    }

    pub(crate) fn multiply(self, _: &[&[f32]], _: Rows<'_>, _: Output<'_>, _: Option<Stored>) {
        match self {}
    }

    pub(crate) fn multiply_bf16(
        self,
        _: &[&[bf16_rows::Block]],
        _: (&[u8], usize),
        _: Output<'_>,
        _: Option<Stored>,
    ) {
        match self {}
    }

    pub(crate) fn quantize(self, _: &[f32; quantized_rows::COLUMNS], _: &mut quantized_rows::Block) {
        match self {}
    }

    pub(crate) fn prefetch<T>(self, _: &[T]) {
        match self {}
    }

    pub(crate) fn peak(self, _: Multiplication) -> Option<f64> {
        match self {}
    }

    pub(crate) fn add_product(self, _: (&mut [f32], usize), _: RowsRef<'_>, _: &[&[f32]]) {
        match self {}
    }

    pub(crate) fn add_product_bf16(self, _: (&mut [f32], usize), _: RowsRef<'_>, _: &[&[bf16]]) {
        match self {}
    }

    pub(crate) fn add_widened(self, _: (&mut [f32], usize), _: RowsRef<'_>, _: &[&[bf16]], _: &[&[bf16]]) {
        match self {}
    }
}

/// Keys or values.
#[derive(Default)]
pub(crate) struct Paired;

impl Paired {
    pub(crate) fn set_rows(&mut self, proof: Avx512, _: RowsRef<'_>) {
        match proof {}
    }

    pub(crate) fn set_columns(&mut self, proof: Avx512, _: RowsRef<'_>) {
        match proof {}
    }

    pub(crate) fn multiply<const ADD: bool>(&mut self, proof: Avx512, _: RowsRef<'_>, _: &mut [f32]) {
        match proof {}
    }
}

/// Queries.
#[derive(Default)]
pub(crate) struct SplitRows;

impl SplitRows {
    pub(crate) fn set(&mut self, proof: Avx512, _: RowsRef<'_>) {
        match proof {}
    }

    pub(crate) fn score(&self, proof: Avx512, _: &[&[bf16]], _: &[&[bf16]], _: &mut [f32]) {
        match proof {}
    }
}
