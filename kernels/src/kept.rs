//! Memory for what an op makes on its way.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

/// Numbers to be written, in memory that the thread keeps: new memory would be cleared first.
pub(crate) struct Kept {
    data: Vec<f32>,
    len: usize,
}

thread_local! {
    static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

impl Kept {
    /// So many numbers, whatever they are.
    pub(crate) fn new(len: usize) -> Self {
        let mut data = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
        data.resize(data.len().max(len), 0.0);
        Self { data, len }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.with_borrow_mut(|kept| kept.push(std::mem::take(&mut self.data)));
    }
}

impl Deref for Kept {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[..self.len]
    }
}

impl DerefMut for Kept {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.len]
    }
}
