//! How fast this machine reads its memory.

use std::{hint::black_box, time::Instant};

use rayon::prelude::*;

/// Bytes that are read: more than caches hold.
const BYTES: usize = 1 << 29;
/// How often it is read for one measurement.
const ATTEMPTS: usize = 5;

/// Something large to read.
pub(crate) struct Memory {
    words: Vec<u64>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { words: vec![1; BYTES / 8] }
    }

    /// GB/s at which all threads read it: what the best of some attempts reached, as whatever disturbs one makes it slower.
    pub(crate) fn bandwidth(&self) -> f64 {
        (0..ATTEMPTS).map(|_| self.read_once()).fold(0.0, f64::max)
    }

    fn read_once(&self) -> f64 {
        let part = self.words.len().div_ceil(rayon::current_num_threads() * 8);
        let start = Instant::now();
        let sum: u64 =
            self.words.par_chunks(part).map(|part| part.iter().fold(0, |sum, word| sum ^ word)).sum();
        black_box(sum);
        size_of_val(self.words.as_slice()) as f64 / start.elapsed().as_secs_f64() / 1e9
    }
}
