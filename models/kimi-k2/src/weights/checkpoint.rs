//! A checkpoint: its configuration and all tensors that it needs, checked before anything is computed.

use half::{bf16, f16};
use kimi_kernels::{DenseDtype, SharedBytes};
use safetensors::tensor::Dtype;

use super::{
    files::CheckpointFiles,
    finite::first_non_finite,
    index::{Found, INDEX_FILE, SINGLE_FILE, TensorIndex},
    linear::Asked,
    required::{self, Required},
};
use crate::{CheckpointError, ModelConfig, tensor_names as names};

/// What may stand for `model.` in front of the decoder's tensors: flat checkpoints, K2.5 and K2.6, re-uploads of them by
/// others, and what transformers writes itself.
const BODY_PREFIXES: [&str; 4] =
    ["model.", "language_model.model.", "language_model.", "model.language_model."];
/// What may stand in front of `lm_head`.
const HEAD_PREFIXES: [&str; 2] = ["", "language_model."];

/// An open checkpoint. Cheap to look things up in; safe to share between threads.
pub struct Checkpoint {
    files: CheckpointFiles,
    config: ModelConfig,
    index: TensorIndex,
    total_bytes: u64,
    body_prefix: &'static str,
    head_prefix: &'static str,
}

/// A tensor as it is stored.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// Number format.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Row-major little-endian numbers, not necessarily aligned.
    pub bytes: SharedBytes,
}

/// What the headers tell about a tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorSummary<'a> {
    /// Name as stored, with whatever prefix.
    pub(crate) name: &'a str,
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
    pub(crate) bytes: u64,
}

impl Checkpoint {
    /// Reads configuration, index and headers, and checks that every tensor which the configuration requires is there
    /// with the right shape and dtype. No weight is read.
    ///
    /// # Errors
    /// The first problem, with the number of further ones of its kind.
    pub fn open(files: CheckpointFiles) -> Result<Self, CheckpointError> {
        const GENERATION: &str = "generation_config.json";
        let config = files.read("config.json")?;
        let generation = files.exists(GENERATION).then(|| files.read(GENERATION)).transpose()?;
        let config = ModelConfig::parse(&config, generation.as_deref()).map_err(|error| {
            let file = error.file.as_deref().unwrap_or("config.json").to_owned();
            error.file(files.display(&file))
        })?;
        let index = TensorIndex::open(&files)?;
        let has = |name: String| index.get(&name).is_some();
        let body_prefix = BODY_PREFIXES.into_iter().find(|prefix| {
            has(format!("{prefix}embed_tokens.weight")) || has(format!("{prefix}norm.weight"))
        });
        let head_prefix = HEAD_PREFIXES.into_iter().find(|prefix| has(format!("{prefix}lm_head.weight")));
        let total_bytes = index.total_bytes();
        let checkpoint = Self {
            files,
            config,
            index,
            total_bytes,
            body_prefix: body_prefix.unwrap_or(BODY_PREFIXES[0]),
            head_prefix: head_prefix.unwrap_or(HEAD_PREFIXES[0]),
        };
        checkpoint.check_required()?;
        Ok(checkpoint)
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The files, for what is no weight: vocabulary, chat template, generation defaults.
    pub fn files(&self) -> &CheckpointFiles {
        &self.files
    }

    /// Bytes of all tensors.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Number of safetensors files.
    pub fn shard_count(&self) -> usize {
        self.index.shard_count()
    }

    /// Name and bytes of each safetensors file.
    pub(super) fn shards(&self) -> &[(String, SharedBytes)] {
        self.index.shards()
    }

    /// Whether there is a tensor with this canonical name.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The tensor `name`, in whatever format it is stored; the bytes stay in the mapped file.
    ///
    /// # Errors
    /// There is no such tensor, or it has another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<StoredTensor, CheckpointError> {
        let found = self.find_shaped(name, shape)?;
        Ok(StoredTensor { dtype: found.dtype, shape: shape.to_vec(), bytes: found.bytes() })
    }

    /// The vector `name`, such as a norm or the router's correction bias, as f32.
    ///
    /// # Errors
    /// There is no such tensor, it has another length or is not of floating-point numbers, or one is not finite.
    pub fn vector_f32(&self, name: &str, len: usize) -> Result<Vec<f32>, CheckpointError> {
        self.numbers_f32(name, &[len])
    }

    /// The tensor `name`, a small one, as f32 in row-major order.
    ///
    /// # Errors
    /// As [`vector_f32`](Self::vector_f32).
    pub fn numbers_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let found = self.find_shaped(name, shape)?;
        let dtype = self.dense_dtype(name, &found)?;
        self.check_finite(name, &found, dtype)?;
        Ok(widen(dtype, &found.bytes()))
    }

    /// All tensors, required or not, by stored name.
    pub(crate) fn summaries(&self) -> Vec<TensorSummary<'_>> {
        let sorted = self.index.sorted().into_iter();
        sorted
            .map(|(name, found)| TensorSummary {
                name,
                dtype: found.dtype,
                shape: found.shape,
                bytes: found.len() as u64,
            })
            .collect()
    }

    /// The canonical name of a stored one: the inverse of [`Self::stored_name`].
    pub(crate) fn canonical_name(&self, stored: &str) -> String {
        // The head first: its prefix may be the beginning of the decoder's, or the same.
        if let Some(head) =
            stored.strip_prefix(self.head_prefix).filter(|rest| rest.starts_with(names::LM_HEAD))
        {
            return head.to_owned();
        }
        match stored.strip_prefix(self.body_prefix) {
            Some(rest) => format!("{}{rest}", BODY_PREFIXES[0]),
            None => stored.to_owned(),
        }
    }

    /// How the canonical `name` is spelled in this checkpoint.
    pub(super) fn stored_name(&self, name: &str) -> String {
        if let Some(rest) = name.strip_prefix(BODY_PREFIXES[0]) {
            return format!("{}{rest}", self.body_prefix);
        }
        if name.starts_with(names::LM_HEAD) {
            return format!("{}{name}", self.head_prefix);
        }
        name.to_owned()
    }

    pub(super) fn find(&self, name: &str) -> Option<Found<'_>> {
        self.index.get(&self.stored_name(name))
    }

    pub(super) fn find_shaped(&self, name: &str, shape: &[usize]) -> Result<Found<'_>, CheckpointError> {
        let found = self.find(name).ok_or_else(|| self.missing(name, shape))?;
        if found.shape == shape {
            return Ok(found);
        }
        Err(CheckpointError::new("wrong shape")
            .file(self.files.display(found.file))
            .tensor(self.stored_name(name))
            .expected(format!("{shape:?}, by config.json"))
            .found(format!("{:?}", found.shape))
            .advice("config.json and weights do not fit together; download both again"))
    }

    pub(super) fn missing(&self, name: &str, shape: &[usize]) -> CheckpointError {
        let file = if self.files.exists(INDEX_FILE) { INDEX_FILE } else { SINGLE_FILE };
        CheckpointError::new("missing tensor")
            .file(self.files.display(file))
            .tensor(self.stored_name(name))
            .expected(format!("{shape:?}, by config.json"))
            .found("nothing")
            .advice("the checkpoint is incomplete or config.json is another model's; download it again")
    }

    /// The file of a tensor, for a message.
    pub(super) fn file_of(&self, name: &str) -> String {
        self.files.display(self.find(name).map_or(SINGLE_FILE, |found| found.file))
    }

    pub(super) fn expect_dtype(
        &self,
        name: &str,
        found: &Found<'_>,
        wanted: &[Dtype],
    ) -> Result<(), CheckpointError> {
        if wanted.contains(&found.dtype) {
            return Ok(());
        }
        let spelled: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        Err(CheckpointError::new("wrong dtype")
            .file(self.files.display(found.file))
            .tensor(self.stored_name(name))
            .expected(spelled.join(" or "))
            .found(found.dtype)
            .advice("download the checkpoint again, or convert this tensor"))
    }

    pub(super) fn dense_dtype(&self, name: &str, found: &Found<'_>) -> Result<DenseDtype, CheckpointError> {
        self.expect_dtype(name, found, &[Dtype::BF16, Dtype::F16, Dtype::F32])?;
        Ok(match found.dtype {
            Dtype::BF16 => DenseDtype::Bf16,
            Dtype::F16 => DenseDtype::F16,
            _ => DenseDtype::F32,
        })
    }

    pub(super) fn check_finite(
        &self,
        name: &str,
        found: &Found<'_>,
        dtype: DenseDtype,
    ) -> Result<(), CheckpointError> {
        let bytes = found.bytes();
        let Some(position) = first_non_finite(dtype, &bytes) else { return Ok(()) };
        let size = dtype.size();
        let value = widen(dtype, &bytes[position * size..][..size]);
        Err(CheckpointError::new("not a finite number")
            .file(self.files.display(found.file))
            .tensor(self.stored_name(name))
            .expected("finite numbers")
            .found(format!("{} at position {position}", value[0]))
            .advice("the file is damaged; download it again"))
    }

    /// Checks the headers of everything the configuration requires.
    fn check_required(&self) -> Result<(), CheckpointError> {
        let mut first: Option<CheckpointError> = None;
        required::for_each(&self.config, |required| {
            let result = match required {
                Required::Dense { tensor, shape } => self
                    .find_shaped(&tensor, &shape)
                    .and_then(|found| self.dense_dtype(&tensor, &found))
                    .map(|_| ()),
                Required::Linear { module, .. }
                    if module == names::LM_HEAD && self.config.tie_word_embeddings =>
                {
                    Ok(())
                }
                Required::Linear { module, out_features, in_features } => {
                    self.find_linear(Asked { module: &module, out_features, in_features }).map(|_| ())
                }
            };
            match (result, &mut first) {
                (Ok(()), _) => {}
                (Err(_), Some(first)) => first.more += 1,
                (Err(error), None) => first = Some(error),
            }
        });
        first.map_or(Ok(()), Err)
    }
}

fn widen(dtype: DenseDtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        DenseDtype::Bf16 => {
            bytes.as_chunks::<2>().0.iter().map(|n| bf16::from_le_bytes(*n).to_f32()).collect()
        }
        DenseDtype::F16 => bytes.as_chunks::<2>().0.iter().map(|n| f16::from_le_bytes(*n).to_f32()).collect(),
        DenseDtype::F32 => bytes.as_chunks::<4>().0.iter().map(|n| f32::from_le_bytes(*n)).collect(),
    }
}
