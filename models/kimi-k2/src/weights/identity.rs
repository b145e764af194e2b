//! What tells one checkpoint from another without reading its weights.

use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use super::{checkpoint::Checkpoint, files::CheckpointFiles};
use crate::CheckpointError;

impl Checkpoint {
    /// Changes when another checkpoint takes the place of this one: a hash of the configuration, of every tensor's name,
    /// dtype and shape, and of the shards' sizes and times of change, or their contents where they are part of the program.
    /// A copy of a checkpoint may have another identity; what is derived from it is then computed again.
    ///
    /// # Errors
    /// A file has become unreadable.
    pub fn identity(&self) -> Result<[u8; 32], CheckpointError> {
        let mut hash = Sha256::new_with_prefix(self.files().read("config.json")?);
        for tensor in self.summaries() {
            hash.update(format!("{} {:?} {:?}\n", tensor.name, tensor.dtype, tensor.shape));
        }
        for (name, bytes) in self.shards() {
            hash.update(format!("{name} {}\n", bytes.len()));
            match self.files() {
                CheckpointFiles::Embedded(_) => hash.update(&**bytes),
                CheckpointFiles::Directory(directory) => {
                    let changed = std::fs::metadata(directory.join(name)).and_then(|data| data.modified());
                    let age = changed.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                    hash.update(age.unwrap_or_default().as_nanos().to_le_bytes());
                }
            }
        }
        Ok(hash.finalize().into())
    }
}
