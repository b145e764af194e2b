//! Where the files are: `DIRECTORY/IDENTITY/xx/KEY.kv`, `xx` being the first byte of the key.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use kimi_scheduler::BlockKey;
use thiserror::Error;
use tracing::warn;

use super::block_file::{self, Damage, HEADER};

/// A file takes a multiple of this on most file systems.
const DISK_PAGE: u64 = 4096;
const EXTENSION: &str = "kv";

/// The second tier cannot be used.
#[derive(Debug, Error)]
pub enum DiskTierError {
    /// The directory cannot be made, read or written.
    #[error("cannot use {} for --kv-disk: {source}", path.display())]
    Directory {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} is used by another server with the same checkpoint; give each its own --kv-disk", .0.display())]
    InUse(PathBuf),
    /// Not even one block fits.
    #[error("--kv-disk-size {max_bytes} holds no block: one takes {block} bytes; raise it")]
    TooSmall {
        /// The limit.
        max_bytes: u64,
        /// Bytes of a block's file.
        block: u64,
    },
    /// The thread that writes did not start.
    #[error("cannot start the thread that writes to --kv-disk: {0}")]
    Thread(io::Error),
}

/// The files of one cache's blocks. Nobody else uses them while this or a clone of it lives.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: PathBuf,
    identity: [u8; 32],
    block_bytes: usize,
    /// Locked; the system unlocks it when the process ends, however it does.
    _lock: Arc<File>,
}

impl Directory {
    pub(super) fn open(parent: &Path, identity: [u8; 32], block_bytes: usize) -> Result<Self, DiskTierError> {
        let path = parent.join(hex(&identity[..16]));
        let failed = |source| DiskTierError::Directory { path: path.clone(), source };
        // What users said can be guessed from blocks, so nobody else may read them.
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        let lock = File::create(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DiskTierError::InUse(path)),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        for byte in 0..=u8::MAX {
            let folder = path.join(hex(&[byte]));
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        }
        Ok(Self { path, identity, block_bytes, _lock: Arc::new(lock) })
    }

    /// Blocks that fit into `max_bytes`.
    pub(super) fn capacity(&self, max_bytes: u64) -> Result<usize, DiskTierError> {
        let block = (self.file_bytes() as u64).next_multiple_of(DISK_PAGE);
        match max_bytes / block {
            0 => Err(DiskTierError::TooSmall { max_bytes, block }),
            blocks => Ok(usize::try_from(blocks).unwrap_or(usize::MAX)),
        }
    }

    /// The blocks that an earlier process left, the one used longest ago first. Only names and sizes are looked at. What is
    /// cut off or unfinished is deleted; what is not ours is left alone.
    pub(super) fn scan(&self) -> Result<Vec<BlockKey>, DiskTierError> {
        let mut found = Vec::new();
        let (mut cut, mut foreign) = (0_usize, 0_usize);
        for byte in 0..=u8::MAX {
            let folder = self.path.join(hex(&[byte]));
            let failed = |source| DiskTierError::Directory { path: folder.clone(), source };
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let path = entry.path();
                let Some(key) = key_of(&path).filter(|key| key.0[0] == byte) else {
                    foreign += 1;
                    continue;
                };
                let metadata = entry.metadata().map_err(failed)?;
                let whole = metadata.len() == self.file_bytes() as u64;
                if whole && path.extension().is_some_and(|extension| extension == EXTENSION) {
                    found.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), key));
                } else {
                    // A file that was not finished is the trace of a process that was killed, and no news.
                    cut += usize::from(path.extension().is_some_and(|extension| extension == EXTENSION));
                    let _ = fs::remove_file(&path);
                }
            }
        }
        if cut + foreign > 0 {
            warn!(directory = %self.path.display(), cut, foreign, "files that are no blocks of --kv-disk are ignored");
        }
        found.sort_unstable_by_key(|(used, key)| (*used, key.0));
        Ok(found.into_iter().map(|(_, key)| key).collect())
    }

    /// The file of a block.
    pub(super) fn path(&self, key: BlockKey) -> PathBuf {
        let mut path = self.path.join(hex(&key.0[..1]));
        path.push(hex(&key.0));
        path.set_extension(EXTENSION);
        path
    }

    /// Reads a block with its header; an error says why there is none.
    pub(super) fn read(&self, key: BlockKey, buffer: &mut Vec<u8>) -> Result<(), Damage> {
        block_file::read(&self.path(key), &self.identity, key, self.file_bytes(), buffer)
    }

    pub(super) fn write(&self, key: BlockKey, payload: &[u8]) -> io::Result<()> {
        block_file::write(&self.path(key), &self.identity, key, payload)
    }

    /// Deletes a block; one that is not there is deleted already.
    pub(super) fn delete(&self, key: BlockKey) {
        let _ = fs::remove_file(self.path(key));
    }

    fn file_bytes(&self) -> usize {
        HEADER + self.block_bytes
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The key in a file's name, finished or not.
fn key_of(path: &Path) -> Option<BlockKey> {
    let ours = path.extension().is_some_and(|extension| extension == EXTENSION || extension == "tmp");
    let name = path.file_stem()?.to_str()?;
    if !ours || name.len() != 32 || name.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u128::from_str_radix(name, 16).ok().map(|number| BlockKey(number.to_be_bytes()))
}
