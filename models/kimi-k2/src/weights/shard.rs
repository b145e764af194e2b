//! One safetensors file: its header, checked against its length, and the bytes of its tensors.

use std::{collections::HashMap, ops::Range};

use kimi_kernels::SharedBytes;
use safetensors::tensor::{Dtype, Metadata};

use super::files::CheckpointFiles;
use crate::CheckpointError;

/// Bytes of the number that says how long the header is.
const LENGTH_BYTES: usize = 8;
/// The limit that the safetensors format sets.
const MAX_HEADER: u64 = 100_000_000;

/// A mapped safetensors file.
pub(super) struct Shard {
    /// Its name in the checkpoint.
    pub(super) name: String,
    /// What follows the header.
    pub(super) data: SharedBytes,
    /// What lies where in `data`.
    pub(super) tensors: HashMap<String, TensorEntry>,
}

/// A tensor's line in the header.
pub(super) struct TensorEntry {
    /// Number format.
    pub(super) dtype: Dtype,
    /// Dimensions.
    pub(super) shape: Vec<usize>,
    /// Bytes, inside the shard's data.
    pub(super) range: Range<usize>,
}

impl Shard {
    /// Maps the file `name` and reads its header; the weights themselves are not touched.
    ///
    /// # Errors
    /// An absent file, a header that is no header, offsets that overlap or leave gaps, a file that is too short or long.
    pub(super) fn open(files: &CheckpointFiles, name: &str) -> Result<Self, CheckpointError> {
        let bytes = files.map(name)?;
        let file = files.display(name);
        let header = read_header(&bytes, &file)?;
        let metadata: Metadata = serde_json::from_slice(&bytes[header.clone()]).map_err(|error| {
            damaged("damaged safetensors header", &file)
                .expected("names, shapes and gapless offsets")
                .found(error)
        })?;
        let wanted = header.end + metadata.data_len();
        if bytes.len() != wanted {
            let what =
                if bytes.len() < wanted { "truncated file" } else { "file longer than its header says" };
            return Err(damaged(what, &file)
                .expected(format!("{wanted} bytes"))
                .found(format!("{} bytes", bytes.len())));
        }
        let data = bytes.slice(header.end..wanted).expect("invariant: the length was compared above");
        let tensors = metadata.tensors().into_iter().map(|(name, info)| {
            let (start, end) = info.data_offsets;
            (name, TensorEntry { dtype: info.dtype, shape: info.shape.clone(), range: start..end })
        });
        Ok(Self { name: name.to_owned(), data, tensors: tensors.collect() })
    }
}

/// The range of the JSON header: a little-endian u64 at the start of the file says how long it is.
fn read_header(bytes: &[u8], file: &str) -> Result<Range<usize>, CheckpointError> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return Err(damaged("truncated file", file)
            .expected("at least 8 bytes")
            .found(format!("{} bytes", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    let room = (bytes.len() - LENGTH_BYTES) as u64;
    if length > MAX_HEADER {
        return Err(damaged("not a safetensors file", file)
            .expected(format!("a header of at most {MAX_HEADER} bytes"))
            .found(format!("a header length of {length}")));
    }
    if length > room {
        return Err(damaged("truncated file", file)
            .expected(format!("a header of {length} bytes"))
            .found(format!("{room} bytes after the header's length")));
    }
    Ok(LENGTH_BYTES..LENGTH_BYTES + length as usize)
}

fn damaged(what: &str, file: &str) -> CheckpointError {
    CheckpointError::new(what).file(file).advice("download this file again")
}
