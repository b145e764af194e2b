//! Reading weights before they are needed, and keeping them.

use std::{
    hint::black_box,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use kimi_kernels::lock_pages;

use super::checkpoint::Checkpoint;
use crate::CheckpointError;

/// Bytes that a thread reads at a time.
const CHUNK: usize = 32 << 20;
/// Enough to keep a fast disk busy.
const THREADS: usize = 8;
/// The smallest page of any system: touching each brings all of them in.
const PAGE: usize = 4096;

impl Checkpoint {
    /// Keeps the weight files in memory, whatever else the machine does, until the last weight is dropped. Reads what is not there
    /// yet: [`prefetch`](Self::prefetch) does so faster.
    ///
    /// # Errors
    /// When the system allows less.
    pub fn lock(&self) -> Result<(), CheckpointError> {
        for (name, bytes) in self.shards() {
            lock_pages(bytes).map_err(|error| {
                CheckpointError::new("cannot keep the weights in memory")
                    .file(name)
                    .expected(format!("leave to lock {} bytes", self.total_bytes()))
                    .found(error)
                    .advice("raise the limit (ulimit -l, LimitMEMLOCK= of systemd) or leave out --mlock")
            })?;
        }
        Ok(())
    }

    /// Touches every page of the weight files, so that the system reads those it does not hold and maps all: no step waits for a
    /// disk then, as long as memory lasts. `progress` hears `(bytes read, bytes of all files)`.
    pub fn prefetch(&self, progress: &mut dyn FnMut(u64, u64)) {
        let chunks: Vec<&[u8]> = self.shards().iter().flat_map(|(_, bytes)| bytes.chunks(CHUNK)).collect();
        let total = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let next = AtomicUsize::new(0);
        let (sender, read) = mpsc::channel();
        progress(0, total);
        thread::scope(|scope| {
            for _ in 0..THREADS.min(chunks.len()) {
                let (chunks, next, sender) = (&chunks, &next, sender.clone());
                scope.spawn(move || {
                    while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                        chunk.iter().step_by(PAGE).for_each(|byte| {
                            black_box(*byte);
                        });
                        // Whoever listens does so until all are done.
                        let _ = sender.send(chunk.len() as u64);
                    }
                });
            }
            drop(sender);
            let mut done = 0;
            for bytes in read {
                done += bytes;
                progress(done, total);
            }
        });
    }
}
