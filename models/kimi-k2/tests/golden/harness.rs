//! Checkpoints with goldens, sequences that run through the model in chosen pieces, and comparisons.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{DType, Device, Tensor};
use kimi_k2::{
    AttentionForm, Batch, CacheDtype, Checkpoint, CheckpointFiles, KimiModel, KvPool, ModelError,
    ModelOptions, SequenceSpan, TapPoint, Taps,
};

/// Agreement that is asked of logits and hidden states.
pub(crate) const TOLERANCE: f32 = 2e-4;

pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn load(directory: &Path, attention: AttentionForm) -> KimiModel {
    let checkpoint = Checkpoint::open(CheckpointFiles::Directory(directory.to_owned())).unwrap();
    let mut last = (0, 0);
    let model = KimiModel::load(&checkpoint, &mut |done, total| last = (done, total)).unwrap();
    assert!(last.0 == last.1 && last.1 > 0, "loading ends at {last:?}");
    model.with_options(ModelOptions { attention, ..ModelOptions::default() })
}

/// Tensors of a safetensors file of goldens.
pub(crate) struct Golden(std::collections::HashMap<String, Tensor>);

impl Golden {
    pub(crate) fn open(path: &Path) -> Self {
        Self(candle_core::safetensors::load(path, &Device::Cpu).unwrap())
    }

    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        self.0[name].to_dtype(DType::U32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    pub(crate) fn floats(&self, name: &str) -> Tensor {
        self.0[name].to_dtype(DType::F32).unwrap()
    }
}

/// A sequence in the cache: which blocks it owns and how far it is.
pub(crate) struct Sequence {
    pub(crate) ids: Vec<u32>,
    pub(crate) computed: usize,
    pub(crate) block_table: Arc<[u32]>,
}

/// Computes the next `counts[i]` tokens of `sequences[i]` in one batch, all rows sampled: logits `[rows, vocabulary]`.
pub(crate) fn advance(
    model: &KimiModel,
    kv: &mut KvPool,
    sequences: &mut [Sequence],
    counts: &[usize],
) -> Tensor {
    let mut batch = Batch::default();
    for (sequence, &count) in sequences.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
        let first = batch.token_ids.len();
        batch.token_ids.extend(&sequence.ids[sequence.computed..][..count]);
        batch.spans.push(SequenceSpan {
            rows: first..first + count,
            start: sequence.computed,
            block_table: sequence.block_table.clone(),
        });
        sequence.computed += count;
    }
    batch.sample_rows = (0..batch.token_ids.len() as u32).collect();
    model.forward(&batch, kv).unwrap().copy().unwrap()
}

/// Logits of all positions of `ids`, computed in pieces of `chunk` tokens with the blocks in reverse order.
pub(crate) fn logits_in_chunks(model: &KimiModel, ids: &[u32], chunk: usize, dtype: CacheDtype) -> Tensor {
    const BLOCK_SIZE: usize = 4;
    let blocks = ids.len().div_ceil(BLOCK_SIZE) as u32;
    let mut kv = KvPool::new(model.config(), blocks as usize, BLOCK_SIZE, dtype).unwrap();
    let mut sequences =
        [Sequence { ids: ids.to_vec(), computed: 0, block_table: (0..blocks).rev().collect() }];
    let mut parts = Vec::new();
    while sequences[0].computed < ids.len() {
        let count = chunk.min(ids.len() - sequences[0].computed);
        parts.push(advance(model, &mut kv, &mut sequences, &[count]));
    }
    Tensor::cat(&parts, 0).unwrap()
}

/// Copies of what passes the taps.
#[derive(Default)]
pub(crate) struct Recorded(Vec<(TapPoint, Tensor)>);

impl Recorded {
    pub(crate) fn get(&self, point: TapPoint) -> &Tensor {
        &self.0.iter().find(|(recorded, _)| *recorded == point).unwrap().1
    }
}

impl Taps for Recorded {
    fn tap(&mut self, point: TapPoint, value: &Tensor) -> Result<(), ModelError> {
        self.0.push((point, value.copy()?));
        Ok(())
    }
}

/// Logits and taps of `ids` in one batch.
pub(crate) fn recorded_forward(model: &KimiModel, ids: &[u32]) -> (Tensor, Recorded) {
    let mut kv = KvPool::new(model.config(), 1, ids.len(), CacheDtype::F32).unwrap();
    let rows = 0..ids.len();
    let batch = Batch {
        token_ids: ids.to_vec(),
        spans: vec![SequenceSpan { rows, start: 0, block_table: [0].into() }],
        sample_rows: (0..ids.len() as u32).collect(),
        features: vec![],
    };
    let mut taps = Recorded::default();
    let logits = model.forward_with_taps(&batch, &mut kv, &mut taps).unwrap().copy().unwrap();
    (logits, taps)
}

/// `max |a - b|`. Shapes must agree; NaN anywhere gives NaN.
pub(crate) fn max_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let differences: Vec<f32> = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().to_vec1().unwrap();
    differences.into_iter().fold(0.0, |largest, d| if d > largest || d.is_nan() { d } else { largest })
}

/// Fails when the difference is above `tolerance`, or not a number.
pub(crate) fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f32) {
    let difference = max_difference(found, expected);
    assert!(difference <= tolerance, "{what}: max |Δ| {difference:e} > {tolerance:e}");
}
