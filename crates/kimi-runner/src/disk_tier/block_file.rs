//! One block as a file: what it is, a checksum, the name of its content, its bytes.
//!
//! ```text
//! "kimikv01" | CRC-32 of all that follows and of the cache's identity, little-endian | key, 16 bytes | payload
//! ```

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    time::SystemTime,
};

use crc32fast::Hasher;
use kimi_scheduler::BlockKey;
use thiserror::Error;

const MAGIC: &[u8; 8] = b"kimikv01";
/// Bytes before the payload.
pub(super) const HEADER: usize = 8 + 4 + 16;

/// Why a file is no block.
#[derive(Debug, Error)]
pub(super) enum Damage {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it has {found} bytes instead of {expected}")]
    Size { found: usize, expected: usize },
    #[error("its contents are not those of its name, or damaged")]
    Contents,
}

fn checksum(identity: &[u8; 32], key: BlockKey, payload: &[u8]) -> [u8; 4] {
    let mut hasher = Hasher::new();
    for part in [&identity[..], &key.0, payload] {
        hasher.update(part);
    }
    hasher.finalize().to_le_bytes()
}

/// Writes a block so that `path` is the whole block or what it was before, whenever the process ends.
pub(super) fn write(path: &Path, identity: &[u8; 32], key: BlockKey, payload: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = File::create(&unfinished)?;
    let header = [&MAGIC[..], &checksum(identity, key, payload), &key.0].concat();
    let written = file.write_all(&header).and_then(|()| file.write_all(payload));
    let renamed = written.and_then(|()| fs::rename(&unfinished, path));
    if renamed.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    renamed
}

/// Reads a block of `size` bytes, header included, into `buffer` and marks the file as used now.
pub(super) fn read(
    path: &Path,
    identity: &[u8; 32],
    key: BlockKey,
    size: usize,
    buffer: &mut Vec<u8>,
) -> Result<(), Damage> {
    let file = File::open(path)?;
    buffer.clear();
    (&file).take(size as u64 + 1).read_to_end(buffer)?;
    if buffer.len() != size {
        return Err(Damage::Size { found: buffer.len(), expected: size });
    }
    let (header, payload) = buffer.split_at(HEADER);
    let expected = [&MAGIC[..], &checksum(identity, key, payload), &key.0].concat();
    if header != expected {
        return Err(Damage::Contents);
    }
    // The next process orders blocks by this; if it cannot be set, a little order is lost.
    let _ = file.set_modified(SystemTime::now());
    Ok(())
}

/// The block's bytes in what [`read`] gave.
pub(super) fn payload(file: &[u8]) -> &[u8] {
    &file[HEADER..]
}
