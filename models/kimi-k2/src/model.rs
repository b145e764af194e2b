//! The model: token ids and features of what is seen in, logits out.

use std::rc::Rc;

use candle_core::Tensor;
use kimi_kernels::{Activations, KeptTensor, PagedSpan, RopeTable, embed, gather_rows};
use kimi_tokens::{Medium, PatchGrid};

use crate::{
    AttentionForm, Batch, Checkpoint, Collective, FeatureRows, KvPool, ModelConfig, ModelError, NoTaps, Solo,
    TapPoint, Taps,
    attention::Step,
    decoder_layer::DecoderLayer,
    linear::Linear,
    norm::RmsNorm,
    rope::rope_table,
    share::Share,
    tensor_names as names,
    vision::{self, VisionTower},
};

/// A loaded model. Weights stay in the mapped checkpoint; what is held here is small. The cache is not part of it.
#[derive(Debug)]
pub struct KimiModel {
    config: ModelConfig,
    options: ModelOptions,
    rope: RopeTable,
    embedding: Linear,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: Linear,
    vision: Option<VisionTower>,
    /// Not shared between threads, and so neither is the model: a rank stays in its thread.
    collective: Rc<dyn Collective>,
}

/// Choices of how it is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelOptions {
    /// Form of attention.
    pub attention: AttentionForm,
    /// How exactly activations meet weights. The default is exact.
    pub activations: Activations,
}

impl KimiModel {
    /// Finds every weight of the checkpoint. `progress` hears `(bytes whose tensors were looked at, bytes of all)`,
    /// layer by layer; bytes are counted evenly over the layers.
    ///
    /// # Errors
    /// A missing tensor, a wrong shape, an unknown format, a scale or norm weight that is not finite.
    pub fn load(checkpoint: &Checkpoint, progress: &mut dyn FnMut(u64, u64)) -> Result<Self, ModelError> {
        Self::load_rank(checkpoint, Rc::new(Solo), progress)
    }

    /// [`load`](Self::load) for one of several ranks: it holds some attention heads, some experts, and parts of the dense
    /// blocks and of the vocabulary (Megatron-LM's scheme, arXiv 1909.08053, with whole experts). Embedding, routers, latent
    /// projections, norms, vision tower and the cache are everyone's. Parts of outputs stay in the mapped files; parts of
    /// inputs, such as those of the attention's output projection, are copied.
    ///
    /// # Errors
    /// As `load`; [`ModelError::Ranks`] when there are too many, and an error that names the columns where scales would have
    /// to be cut apart.
    pub fn load_rank(
        checkpoint: &Checkpoint,
        collective: Rc<dyn Collective>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, ModelError> {
        let config = checkpoint.config().clone();
        let share = Share::new(&*collective, &config)?;
        let (hidden, vocabulary) = (config.hidden_size, config.vocab_size);
        let (total, parts) = (checkpoint.total_bytes(), config.num_layers as u64 + 1);
        progress(0, total);
        let embedding = Linear::load(checkpoint, names::EMBED_TOKENS, vocabulary, hidden)?;
        let mut layers = Vec::with_capacity(config.num_layers);
        for layer in 0..config.num_layers {
            layers.push(DecoderLayer::load(checkpoint, layer, share)?);
            progress(total / parts * (layer as u64 + 1), total);
        }
        let norm = RmsNorm::load(checkpoint, names::FINAL_NORM, hidden, config.rms_norm_eps)?;
        let lm_head = Linear::load(checkpoint, names::LM_HEAD, vocabulary, hidden)?;
        let lm_head = lm_head.outputs(share.of(vocabulary))?;
        let vision =
            config.vision.as_ref().map(|vision| VisionTower::load(checkpoint, vision)).transpose()?;
        progress(total, total);
        let (options, rope) = (ModelOptions::default(), rope_table(&config));
        Ok(Self { config, options, rope, embedding, layers, norm, lm_head, vision, collective })
    }

    /// The same model with other choices.
    #[must_use]
    pub fn with_options(self, options: ModelOptions) -> Self {
        Self { options, ..self }
    }

    /// Keeps the weights that every token uses in 8 bits from now on, as llama.cpp's `Q8_0`: half the bytes of bf16 to read
    /// for a token, at the cost of memory beside the mapped files and of small differences in the logits. Routed experts,
    /// routers, norms, the embedding and the vision tower stay as stored, and so do weights whose rows are not whole blocks
    /// of 128 columns. Returns the bytes of the new weights. `progress` as in [`load`](Self::load), in layers.
    ///
    /// # Errors
    /// None that loading has not found.
    pub fn dense_to_int8(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<u64, ModelError> {
        let parts = self.layers.len() as u64 + 1;
        let mut bytes = self.lm_head.quantize()?;
        progress(1, parts);
        for (layer, done) in self.layers.iter_mut().zip(2..) {
            bytes += layer.quantize()?;
            progress(done, parts);
        }
        Ok(bytes)
    }

    /// The checkpoint's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Whether it has a vision tower.
    pub fn takes_media(&self) -> bool {
        self.vision.is_some()
    }

    /// What the text model sees of an image or clip: f32 `[tokens, hidden]`, a row for each of its positions in a prompt. For a
    /// [`Batch`]'s [`FeatureRows`]. The same bits every time.
    ///
    /// # Errors
    /// [`ModelError::Medium`] when there is no vision tower, or grid and pixels contradict each other or the tower.
    pub fn encode_medium(&self, medium: &Medium) -> Result<Tensor, ModelError> {
        self.encode_patches(&vision::normalized(medium)?, medium.grid)
    }

    /// [`encode_medium`](Self::encode_medium) of patches that are numbers already: f32 `[patches, 3 · 14 · 14]`, from −1 to 1, in
    /// the order of [`Medium::pixels`].
    ///
    /// # Errors
    /// As `encode_medium`.
    pub fn encode_patches(&self, patches: &Tensor, grid: PatchGrid) -> Result<Tensor, ModelError> {
        let tower = self.vision.as_ref();
        let tower = tower.ok_or_else(|| ModelError::Medium("this checkpoint has no vision tower".into()))?;
        tower.encode(patches, grid, self.options.activations)
    }

    /// Hop 7a of 9. Computes a batch: writes its tokens' entries to `kv` and returns the logits of its sampled rows,
    /// f32 `[sample_rows, vocabulary]`, in the order of `batch.sample_rows`. Of several ranks, which are all given the same
    /// batch, the first one gets them; the others get no rows.
    ///
    /// Logits may be non-finite when weights are broken; who samples must look.
    ///
    /// # Errors
    /// [`ModelError::Batch`] when the batch contradicts itself, the vocabulary or the cache; nothing was written then.
    pub fn forward(&self, batch: &Batch, kv: &mut KvPool) -> Result<KeptTensor, ModelError> {
        self.forward_with_taps(batch, kv, &mut NoTaps)
    }

    /// [`forward`](Self::forward) that shows intermediate values to `taps`.
    ///
    /// # Errors
    /// As `forward`, and what `taps` returns.
    pub fn forward_with_taps(
        &self,
        batch: &Batch,
        kv: &mut KvPool,
        taps: &mut dyn Taps,
    ) -> Result<KeptTensor, ModelError> {
        batch.check(&self.config, kv)?;
        let step = self.step(batch);

        let x = self.hidden_states(batch.token_ids.len())?; // [rows, hidden]
        embed(self.embedding.weight(), &batch.token_ids, &x)?;
        for FeatureRows { rows, features, first } in &batch.features {
            x.slice_set(&features.narrow(0, *first, rows.len())?, 0, rows.start)?;
        }
        taps.tap(TapPoint::Embedding, &x)?;
        for (index, layer) in self.layers.iter().enumerate() {
            layer.forward(&x, &step, kv.layer(index), taps)?;
        }

        let no_logits = || Ok(KeptTensor::new((0, self.config.vocab_size))?);
        if batch.sample_rows.is_empty() {
            return no_logits();
        }
        let sampled = self.hidden_states(batch.sample_rows.len())?; // [sample_rows, hidden]
        gather_rows(&x, &batch.sample_rows, &sampled)?;
        let normed = self.norm.forward(&sampled)?; // [sample_rows, hidden]
        taps.tap(TapPoint::FinalNorm, &normed)?;
        let logits = self.lm_head.forward(&normed, self.options.activations)?; // [sample_rows, own part]
        self.collective.gather_columns(logits)?.map_or_else(no_logits, Ok) // [sample_rows, vocabulary]
    }

    fn step<'a>(&'a self, batch: &'a Batch) -> Step<'a> {
        let spans = batch.spans.iter();
        let positions =
            spans.clone().flat_map(|span| span.start as u32..(span.start + span.rows.len()) as u32);
        Step {
            rotations: self.rope.rotations(&positions.collect::<Vec<_>>()),
            spans: spans
                .map(|span| PagedSpan {
                    block_table: &span.block_table,
                    start: span.start,
                    rows: span.rows.len(),
                })
                .collect(),
            form: self.options.attention,
            activations: self.options.activations,
            collective: &*self.collective,
        }
    }

    /// To be written.
    fn hidden_states(&self, rows: usize) -> candle_core::Result<KeptTensor> {
        KeptTensor::new((rows, self.config.hidden_size))
    }
}
