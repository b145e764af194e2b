//! How fast this machine reads its memory.

use std::{hint::black_box, time::Instant};

use anyhow::Result;
use memmap2::MmapMut;
use rayon::prelude::*;

/// Bytes that are read: more than caches hold.
const BYTES: usize = 1 << 29;
/// How often it is read for one measurement.
const ATTEMPTS: usize = 5;

/// Something large to read.
pub(crate) struct Memory {
    bytes: MmapMut,
}

impl Memory {
    /// The system's own, not the allocator's, which might keep it: who asks what a model takes measures afterwards.
    pub(crate) fn new() -> Result<Self> {
        let mut bytes = MmapMut::map_anon(BYTES)?;
        bytes.fill(1);
        Ok(Self { bytes })
    }

    /// GB/s at which all threads read it: what the best of some attempts reached, as whatever disturbs one makes it slower.
    pub(crate) fn bandwidth(&self) -> f64 {
        (0..ATTEMPTS).map(|_| self.read_once()).fold(0.0, f64::max)
    }

    fn read_once(&self) -> f64 {
        let words = self.bytes.as_chunks().0;
        let part = words.len().div_ceil(rayon::current_num_threads() * 8);
        let start = Instant::now();
        let sum: u64 = words
            .par_chunks(part)
            .map(|part| part.iter().fold(0, |sum, word| sum ^ u64::from_ne_bytes(*word)))
            .sum();
        black_box(sum);
        self.bytes.len() as f64 / start.elapsed().as_secs_f64() / 1e9
    }
}
