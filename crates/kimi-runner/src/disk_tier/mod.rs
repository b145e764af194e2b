//! The second tier of the cache, in files: what leaves the cache, or might with the process, is found again.
//!
//! What is kept and for how long is the scheduler's decision, told with every plan. The rank's thread copies blocks out and
//! reads blocks back; a thread of its own writes and deletes. One file holds one block, written under another name and
//! renamed, so whenever the process ends a file is whole or not there. A file that is not what its name says is found out by its
//! checksum and costs a computation.
//!
//! A tier in host memory would stand here beside this one, once the cache lies in a device's memory: the same plans, the same
//! reports.

mod block_file;
mod directory;
mod writer;

use std::path::PathBuf;

use kimi_engine::RunnerError;
use kimi_k2::{KvPool, ModelError};
use kimi_scheduler::{BlockKey, StepPlan, TierContents, TierReport};
use tracing::warn;

pub use self::directory::DiskTierError;
use self::{directory::Directory, writer::Writer};

/// Copies that wait to be written take at most about this much memory.
const WAITING_BYTES: usize = 64 << 20;

/// Where blocks are kept beyond the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskTierConfig {
    /// A directory of its own; made if need be. Several checkpoints may share it.
    pub directory: PathBuf,
    /// Bytes the blocks of this checkpoint may take.
    pub max_bytes: u64,
}

/// What the rank's thread has of the tier.
pub(crate) struct DiskTier {
    directory: Directory,
    writer: Writer,
    /// Copies that may wait to be written.
    room: usize,
    /// The file read last.
    buffer: Vec<u8>,
}

impl DiskTier {
    /// Opens the tier of a cache whose blocks have `block_bytes`, and says what it holds. `identity` is different for every
    /// cache whose blocks mean something else.
    pub(crate) fn open(
        config: &DiskTierConfig,
        identity: [u8; 32],
        block_bytes: usize,
    ) -> Result<(Self, TierContents), DiskTierError> {
        let directory = Directory::open(&config.directory, identity, block_bytes)?;
        let capacity = directory.capacity(config.max_bytes)?;
        let stored = directory.scan()?;
        let writer = Writer::start(directory.clone()).map_err(DiskTierError::Thread)?;
        let room = (WAITING_BYTES / block_bytes.max(1)).max(1);
        Ok((Self { directory, writer, room, buffer: Vec::new() }, TierContents { capacity, stored }))
    }

    /// Does what a plan says: copies out, brings back, forgets.
    pub(crate) fn work(&mut self, plan: &StepPlan, kv: &mut KvPool) -> Result<TierReport, RunnerError> {
        let mut report = TierReport::default();
        if plan.tier.drain {
            self.writer.wait(&mut report);
        }
        self.writer.collect(&mut report);
        report.accepted = plan.tier.saves.len().min(self.room.saturating_sub(self.writer.waiting()));
        let saves = &plan.tier.saves[..report.accepted];
        let copies = saves.iter().map(|(block, key)| Ok((*key, kv.read_block(block.0)?)));
        let copies = copies.collect::<Result<Vec<_>, ModelError>>().map_err(|error| broken(&error))?;
        for (block, key) in &plan.tier.restores {
            if !self.read(*key) {
                break;
            }
            kv.write_block(block.0, block_file::payload(&self.buffer)).map_err(|error| broken(&error))?;
            report.restored += 1;
        }
        report.restored_bytes = (report.restored * kv.bytes_per_block()) as u64;
        for key in &plan.tier.drops {
            self.writer.drop_block(*key);
        }
        for (key, bytes) in copies {
            self.writer.save(key, bytes);
        }
        if plan.tier.drain {
            self.writer.wait(&mut report);
        }
        report.written_bytes = (report.written.len() * kv.bytes_per_block()) as u64;
        Ok(report)
    }

    /// Reads a block into the buffer; says why not in the log.
    fn read(&mut self, key: BlockKey) -> bool {
        let read = self.directory.read(key, &mut self.buffer);
        if let Err(problem) = &read {
            let file = self.directory.path(key);
            warn!(file = %file.display(), %problem, "a block of --kv-disk is ignored and computed again");
            self.writer.drop_block(key);
        }
        read.is_ok()
    }
}

fn broken(error: &ModelError) -> RunnerError {
    RunnerError(error.to_string())
}

#[cfg(test)]
mod tests;
