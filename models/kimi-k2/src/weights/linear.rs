//! In which format a linear layer is stored: what the configuration says, held against the tensors that are there.

use kimi_kernels::{DenseDtype, Weight, WeightData};
use safetensors::tensor::Dtype;

use super::{checkpoint::Checkpoint, index::Found};
use crate::{CheckpointError, Quantization, tensor_names as names};

/// Columns that share an int4 scale.
const GROUP: usize = 32;
/// int4 codes in a packed word.
const CODES_PER_WORD: usize = 8;
/// Rows and columns of an fp8 block.
const BLOCK: usize = 128;
/// Checkpoints up to this size have all their int4 scales checked for NaN and infinity. In a larger one that would read
/// tens of gigabytes from disk before the first token; there the check of the logits, request by request, must do.
const SCAN_LIMIT: u64 = 64 << 30;

/// The tensors of a linear layer, found and checked for dtype and shape, their bytes not yet touched.
pub(super) enum StoredLinear<'a> {
    Dense { weight: Found<'a>, dtype: DenseDtype },
    Int4 { packed: Found<'a>, scales: Found<'a>, scale_dtype: DenseDtype, logical_shape: Found<'a> },
    Fp8 { codes: Found<'a>, scale_inv: Found<'a> },
}

/// What `quantization_config` says about a module.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Configured {
    Dense,
    Int4,
    /// Blocks where the stored dtype is e4m3: this configuration lists no exceptions, so the tensors themselves say
    /// which modules stayed in bf16.
    Fp8WhereStored,
}

/// A linear layer that is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Canonical name of the module.
    pub(super) module: &'a str,
    pub(super) out_features: usize,
    pub(super) in_features: usize,
}

impl Checkpoint {
    /// Finds the tensors of a linear layer and checks everything that their headers tell.
    pub(super) fn find_linear(&self, asked: Asked<'_>) -> Result<StoredLinear<'_>, CheckpointError> {
        let module = asked.module;
        let weight = format!("{module}.weight");
        let packed = format!("{module}.weight_packed");
        let stored = self.find(&weight);
        let is_fp8 = stored.as_ref().is_some_and(|found| found.dtype == Dtype::F8_E4M3);
        match self.configured(module) {
            Configured::Int4 if self.find(&packed).is_some() => self.find_int4(asked, &packed),
            Configured::Int4 if stored.is_some() => {
                Err(self.disagreement(asked, "int4 (weight_packed and weight_scale)", "weight only"))
            }
            Configured::Int4 => {
                Err(self.missing(&packed, &[asked.out_features, asked.in_features / CODES_PER_WORD]))
            }
            Configured::Fp8WhereStored if is_fp8 => self.find_fp8(asked, &weight),
            Configured::Dense if is_fp8 => Err(self.disagreement(asked, "bf16, f16 or f32", "fp8 (F8_E4M3)")),
            _ if stored.is_none() && self.find(&packed).is_some() => {
                Err(self.disagreement(asked, "weight", "int4 (weight_packed)"))
            }
            _ => {
                let weight = self.find_shaped(&weight, &[asked.out_features, asked.in_features])?;
                let dtype = self.dense_dtype(&asked.tensor("weight"), &weight)?;
                Ok(StoredLinear::Dense { weight, dtype })
            }
        }
    }

    /// A linear layer's weight. `module` is its name without `.weight`; the shape is `[out_features, in_features]`.
    ///
    /// Nothing is copied: the weight holds on to the mapped file. A tied head is served from the embedding.
    ///
    /// # Errors
    /// A tensor is missing or has another shape or dtype; `quantization_config` and the tensors disagree; a scale is not
    /// finite (int4 scales are looked at in checkpoints up to 64 GiB, fp8 scales always).
    pub fn linear(
        &self,
        module: &str,
        out_features: usize,
        in_features: usize,
    ) -> Result<Weight, CheckpointError> {
        let tied = module == names::LM_HEAD && self.config().tie_word_embeddings;
        let module = if tied { names::EMBED_TOKENS } else { module };
        let asked = Asked { module, out_features, in_features };
        let data = match self.find_linear(asked)? {
            StoredLinear::Dense { weight, dtype } => WeightData::Dense { dtype, bytes: weight.bytes() },
            StoredLinear::Int4 { packed, scales, scale_dtype, logical_shape } => {
                self.check_logical_shape(asked, &logical_shape)?;
                if self.total_bytes() <= SCAN_LIMIT {
                    self.check_finite(&asked.tensor("weight_scale"), &scales, scale_dtype)?;
                }
                WeightData::Int4Group32 { packed: packed.bytes(), scales: scales.bytes(), scale_dtype }
            }
            StoredLinear::Fp8 { codes, scale_inv } => {
                self.check_finite(&asked.tensor("weight_scale_inv"), &scale_inv, DenseDtype::F32)?;
                WeightData::Fp8Block128 { codes: codes.bytes(), scale_inv: scale_inv.bytes() }
            }
        };
        Ok(Weight { out_features, in_features, data })
    }

    /// The weight of a convolution over `window`, as a linear layer from all its numbers. Nothing is copied.
    ///
    /// # Errors
    /// The tensor is missing or has another shape, or a dtype other than bf16, f16 and f32.
    pub fn convolution(
        &self,
        module: &str,
        out_features: usize,
        window: [usize; 3],
    ) -> Result<Weight, CheckpointError> {
        let name = names::weight(module);
        let [channels, height, width] = window;
        let found = self.find_shaped(&name, &[out_features, channels, height, width])?;
        let data = WeightData::Dense { dtype: self.dense_dtype(&name, &found)?, bytes: found.bytes() };
        Ok(Weight { out_features, in_features: window.iter().product(), data })
    }

    fn configured(&self, module: &str) -> Configured {
        // The router and the embedding are no linear layers in the code that wrote these checkpoints. The vision tower is never
        // quantized, though K2.5 does not list it among the exceptions.
        if module == names::EMBED_TOKENS || module.ends_with(names::ROUTER) || names::is_vision(module) {
            return Configured::Dense;
        }
        let stored = self.stored_name(module);
        let means = |pattern: &crate::ModulePattern| pattern.matches(module) || pattern.matches(&stored);
        match &self.config().quantization {
            Quantization::None => Configured::Dense,
            Quantization::Int4Group32 { ignore, .. } | Quantization::Fp8Block128 { ignore }
                if ignore.iter().any(means) =>
            {
                Configured::Dense
            }
            Quantization::Int4Group32 { targets, .. } => {
                let is_target = targets.iter().any(|target| target.is_any_linear() || means(target));
                if is_target { Configured::Int4 } else { Configured::Dense }
            }
            Quantization::Fp8Block128 { .. } => Configured::Fp8WhereStored,
        }
    }

    fn find_int4(&self, asked: Asked<'_>, packed: &str) -> Result<StoredLinear<'_>, CheckpointError> {
        let Asked { out_features, in_features, .. } = asked;
        if !in_features.is_multiple_of(GROUP) {
            return Err(CheckpointError::new("int4 weight with an incomplete group")
                .file(self.file_of(packed))
                .tensor(self.stored_name(packed))
                .expected(format!("an input size that is a multiple of {GROUP}"))
                .found(in_features)
                .advice("leave this module out of the quantization"));
        }
        let packed_found = self.find_shaped(packed, &[out_features, in_features / CODES_PER_WORD])?;
        self.expect_dtype(packed, &packed_found, &[Dtype::I32, Dtype::U32])?;
        let scale = asked.tensor("weight_scale");
        let scales = self.find_shaped(&scale, &[out_features, in_features / GROUP])?;
        let scale_dtype = self.dense_dtype(&scale, &scales)?;
        let shape = asked.tensor("weight_shape");
        let logical_shape = self.find_shaped(&shape, &[2])?;
        self.expect_dtype(&shape, &logical_shape, &[Dtype::I32, Dtype::I64])?;
        Ok(StoredLinear::Int4 { packed: packed_found, scales, scale_dtype, logical_shape })
    }

    fn find_fp8(&self, asked: Asked<'_>, weight: &str) -> Result<StoredLinear<'_>, CheckpointError> {
        let Asked { out_features, in_features, .. } = asked;
        let codes = self.find_shaped(weight, &[out_features, in_features])?;
        let scale = asked.tensor("weight_scale_inv");
        let scale_inv =
            self.find_shaped(&scale, &[out_features.div_ceil(BLOCK), in_features.div_ceil(BLOCK)])?;
        self.expect_dtype(&scale, &scale_inv, &[Dtype::F32])?;
        Ok(StoredLinear::Fp8 { codes, scale_inv })
    }

    /// Compares `weight_shape`, which holds the shape before packing, with what the configuration makes of the module.
    fn check_logical_shape(&self, asked: Asked<'_>, stored: &Found<'_>) -> Result<(), CheckpointError> {
        let bytes = stored.bytes();
        let numbers: Vec<i64> = match stored.dtype {
            Dtype::I64 => bytes.as_chunks::<8>().0.iter().map(|number| i64::from_le_bytes(*number)).collect(),
            _ => bytes.as_chunks::<4>().0.iter().map(|number| i32::from_le_bytes(*number).into()).collect(),
        };
        let wanted = [asked.out_features as i64, asked.in_features as i64];
        if numbers == wanted {
            return Ok(());
        }
        let name = asked.tensor("weight_shape");
        Err(CheckpointError::new("wrong contents")
            .file(self.file_of(&name))
            .tensor(self.stored_name(&name))
            .expected(format!("{wanted:?}"))
            .found(format!("{numbers:?}"))
            .advice("download the checkpoint again"))
    }

    fn disagreement(&self, asked: Asked<'_>, expected: &str, found: &str) -> CheckpointError {
        CheckpointError::new("quantization_config and tensors disagree")
            .file(self.files().display("config.json"))
            .tensor(self.stored_name(asked.module))
            .expected(expected)
            .found(found)
            .advice("config.json and weights are of different checkpoints; download both again")
    }
}

impl Asked<'_> {
    fn tensor(&self, part: &str) -> String {
        format!("{}.{part}", self.module)
    }
}
