//! All tensors of a checkpoint: one file, or the shards that `model.safetensors.index.json` names.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZero,
};

use kimi_kernels::SharedBytes;
use safetensors::tensor::Dtype;
use serde::Deserialize;

use super::{
    files::CheckpointFiles,
    shard::{Shard, TensorEntry},
};
use crate::CheckpointError;

/// Names the shard of each tensor.
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";
/// The only shard of a small checkpoint.
pub(super) const SINGLE_FILE: &str = "model.safetensors";
/// Headers read at once: enough to hide the disk, few enough for any machine.
const MAX_THREADS: usize = 8;

/// Where each tensor lies.
pub(super) struct TensorIndex {
    tensors: HashMap<String, Location>,
    shards: Vec<(String, SharedBytes)>,
}

struct Location {
    shard: usize,
    entry: TensorEntry,
}

/// A tensor found in the index.
pub(super) struct Found<'a> {
    pub(super) dtype: Dtype,
    pub(super) shape: &'a [usize],
    /// Name of its file.
    pub(super) file: &'a str,
    bytes: &'a SharedBytes,
    entry: &'a TensorEntry,
}

impl Found<'_> {
    /// Its bytes, which stay where they are.
    pub(super) fn bytes(&self) -> SharedBytes {
        self.bytes.slice(self.entry.range.clone()).expect("invariant: the shard checked all ranges")
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.entry.range.len()
    }
}

#[derive(Deserialize)]
struct IndexFile {
    weight_map: BTreeMap<String, String>,
}

impl TensorIndex {
    /// Opens all shards and reads their headers. Where there is an index it decides which files belong to the
    /// checkpoint, whatever else lies beside them.
    pub(super) fn open(files: &CheckpointFiles) -> Result<Self, CheckpointError> {
        if files.exists(INDEX_FILE) {
            return Self::open_sharded(files);
        }
        if !files.exists(SINGLE_FILE) {
            return Err(CheckpointError::new("no weights")
                .file(files.display(SINGLE_FILE))
                .expected(format!("{SINGLE_FILE} or {INDEX_FILE}"))
                .found(some_of(&files.list()?))
                .advice("check the path, or convert the checkpoint to safetensors"));
        }
        let shard = Shard::open(files, SINGLE_FILE)?;
        let located = shard.tensors.into_iter().map(|(name, entry)| (name, Location { shard: 0, entry }));
        Ok(Self { tensors: located.collect(), shards: vec![(shard.name, shard.data)] })
    }

    fn open_sharded(files: &CheckpointFiles) -> Result<Self, CheckpointError> {
        let index: IndexFile = serde_json::from_slice(&files.read(INDEX_FILE)?).map_err(|error| {
            CheckpointError::new("malformed JSON")
                .file(files.display(INDEX_FILE))
                .expected("an object with weight_map, from tensor to file")
                .found(error)
                .advice("download the file again")
        })?;
        let names: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let mut shards = open_all(files, &names)?;
        let mut tensors = HashMap::with_capacity(index.weight_map.len());
        for (tensor, file) in &index.weight_map {
            let shard =
                names.binary_search(&file.as_str()).expect("invariant: names hold every file of the index");
            let entry = shards[shard].tensors.remove(tensor).ok_or_else(|| {
                CheckpointError::new("missing tensor")
                    .file(files.display(file))
                    .tensor(tensor)
                    .expected(format!("in this file, as {INDEX_FILE} says"))
                    .found("nothing")
                    .advice("index and file are of different checkpoints; download both again")
            })?;
            tensors.insert(tensor.clone(), Location { shard, entry });
        }
        Ok(Self { tensors, shards: shards.into_iter().map(|shard| (shard.name, shard.data)).collect() })
    }

    /// The tensor `name`, as stored.
    pub(super) fn get(&self, name: &str) -> Option<Found<'_>> {
        self.tensors.get(name).map(|location| self.found(location))
    }

    /// All tensors, by name.
    pub(super) fn sorted(&self) -> Vec<(&str, Found<'_>)> {
        let mut all: Vec<_> =
            self.tensors.iter().map(|(name, location)| (name.as_str(), self.found(location))).collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        all
    }

    /// Bytes of all tensors.
    pub(super) fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|location| location.entry.range.len() as u64).sum()
    }

    /// Number of files.
    pub(super) fn shards(&self) -> &[(String, SharedBytes)] {
        &self.shards
    }

    pub(super) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    fn found<'a>(&'a self, location: &'a Location) -> Found<'a> {
        let (file, bytes) = &self.shards[location.shard];
        let entry = &location.entry;
        Found { dtype: entry.dtype, shape: &entry.shape, file, bytes, entry }
    }
}

/// Opens the shards `names` on a few threads, because a header of a large checkpoint is megabytes of JSON.
fn open_all(files: &CheckpointFiles, names: &[&str]) -> Result<Vec<Shard>, CheckpointError> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
    let share = names.len().div_ceil(threads).max(1);
    let open = |name: &&str| Shard::open(files, name);
    let results: Vec<Result<Shard, CheckpointError>> = std::thread::scope(|scope| {
        let workers: Vec<_> = names
            .chunks(share)
            .map(|names| scope.spawn(move || names.iter().map(open).collect::<Vec<_>>()))
            .collect();
        let joined =
            workers.into_iter().map(|worker| worker.join().expect("invariant: opening does not panic"));
        joined.flatten().collect()
    });
    let mut shards = Vec::with_capacity(results.len());
    let mut first: Option<CheckpointError> = None;
    for result in results {
        match (result, &mut first) {
            (Ok(shard), _) => shards.push(shard),
            (Err(_), Some(first)) => first.more += 1,
            (Err(error), None) => first = Some(error),
        }
    }
    first.map_or(Ok(shards), Err)
}

/// The beginning of a list of files, for a message.
fn some_of(names: &[String]) -> String {
    match names {
        [] => "no files".to_owned(),
        [first @ .., _] if names.len() > 6 => {
            format!("{} and {} more", first[..5].join(", "), names.len() - 5)
        }
        all => all.join(", "),
    }
}
