//! What a checkpoint is, how large its parts are, and what memory it needs.

use std::fmt;

use safetensors::tensor::Dtype;
use serde::Serialize;

use crate::{Checkpoint, tensor_names as names, weights::TensorSummary};

/// Bytes of a cached value in 16 bits, the size that memory is estimated with.
const CACHE_VALUE_BYTES: u64 = 2;

/// A part of the model, in the order of the forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Token embedding.
    Embeddings,
    /// Projections of the attention.
    Attention,
    /// MLPs of the dense layers.
    DenseMlp,
    /// Shared experts.
    SharedExperts,
    /// Routed experts.
    RoutedExperts,
    /// Routers with their correction bias.
    Router,
    /// Norms of the text model.
    Norms,
    /// Output head.
    Head,
    /// Vision tower.
    VisionTower,
    /// From the vision tower to the text model.
    Projector,
    /// What the configuration does not ask for, such as layers that predict further tokens.
    Unused,
}

impl Part {
    const ALL: [Self; 11] = [
        Self::Embeddings,
        Self::Attention,
        Self::DenseMlp,
        Self::SharedExperts,
        Self::RoutedExperts,
        Self::Router,
        Self::Norms,
        Self::Head,
        Self::VisionTower,
        Self::Projector,
        Self::Unused,
    ];

    /// A name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embeddings => "embeddings",
            Self::Attention => "attention",
            Self::DenseMlp => "dense MLP",
            Self::SharedExperts => "shared experts",
            Self::RoutedExperts => "routed experts",
            Self::Router => "router",
            Self::Norms => "norms",
            Self::Head => "head",
            Self::VisionTower => "vision tower",
            Self::Projector => "projector",
            Self::Unused => "unused",
        }
    }

    /// The part that the tensor with this canonical name belongs to.
    fn of(name: &str, layers: usize) -> Self {
        if name.starts_with(names::VISION_TOWER) {
            return Self::VisionTower;
        }
        if name.starts_with(names::PROJECTOR) {
            return Self::Projector;
        }
        if name.starts_with(names::LM_HEAD) {
            return Self::Head;
        }
        if name.starts_with(names::EMBED_TOKENS) {
            return Self::Embeddings;
        }
        if name == names::FINAL_NORM {
            return Self::Norms;
        }
        let Some((layer, part)) = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'))
        else {
            return Self::Unused;
        };
        match layer.parse::<usize>() {
            Ok(layer) if layer < layers => {}
            _ => return Self::Unused,
        }
        match part {
            _ if part.contains("layernorm.") => Self::Norms,
            _ if part.starts_with("self_attn.") => Self::Attention,
            _ if part.starts_with("mlp.experts.") => Self::RoutedExperts,
            _ if part.starts_with("mlp.shared_experts.") => Self::SharedExperts,
            _ if part.starts_with("mlp.gate.") => Self::Router,
            _ if part.starts_with("mlp.") => Self::DenseMlp,
            _ => Self::Unused,
        }
    }
}

/// The size of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PartSize {
    /// Which part.
    pub part: Part,
    /// Its parameters: numbers of the model, however they are stored; scales are no parameters.
    pub parameters: u64,
    /// Its bytes in the checkpoint, scales included.
    pub bytes: u64,
}

/// What a checkpoint is. Its `Display` is a table for a terminal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// `model_type` of `config.json`.
    pub model_type: String,
    /// Decoder layers.
    pub layers: usize,
    /// How many of them have a dense MLP.
    pub dense_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Attention heads.
    pub attention_heads: usize,
    /// Routed experts of an MoE layer.
    pub routed_experts: usize,
    /// How many of them a token uses.
    pub experts_per_token: usize,
    /// Shared experts.
    pub shared_experts: usize,
    /// How weights are stored.
    pub quantization: String,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Longest context it was validated for, in tokens.
    pub context: usize,
    /// safetensors files.
    pub shards: usize,
    /// Tensors in them.
    pub tensors: usize,
    /// Sizes of the parts that are there.
    pub parts: Vec<PartSize>,
    /// Parameters of all parts that are used.
    pub total_parameters: u64,
    /// Parameters that take part in computing one token: without the embedding (a lookup), the experts that are not
    /// chosen, and vision.
    pub active_parameters: u64,
    /// Bytes of all tensors.
    pub weight_bytes: u64,
    /// Values that the cache keeps for each token, in all layers together.
    pub cache_values_per_token: u64,
    /// What the reader should know.
    pub notes: Vec<String>,
}

impl Inspection {
    /// Bytes that the cache takes for each token, in 16 bits a value.
    pub fn cache_bytes_per_token(&self) -> u64 {
        self.cache_values_per_token * CACHE_VALUE_BYTES
    }

    /// Bytes that the weights and a cache of `tokens` tokens in 16 bits take together.
    pub fn memory_bytes(&self, tokens: usize) -> u64 {
        self.weight_bytes + self.cache_bytes_per_token() * tokens as u64
    }
}

/// Describes `checkpoint` from its configuration and its headers; no weight is read.
pub fn inspect(checkpoint: &Checkpoint) -> Inspection {
    let config = checkpoint.config();
    let summaries = checkpoint.summaries();
    let mut sizes = Part::ALL.map(|part| PartSize { part, parameters: 0, bytes: 0 });
    for summary in &summaries {
        let part = Part::of(&checkpoint.canonical_name(summary.name), config.num_layers);
        let size = &mut sizes[part as usize];
        size.parameters += parameters(summary);
        size.bytes += summary.bytes;
    }
    let of = |part: Part| sizes[part as usize].parameters;
    let routed = match config.n_routed_experts as u64 {
        0 => 0,
        experts => of(Part::RoutedExperts) / experts * config.num_experts_per_tok as u64,
    };
    // A tied head is computed with the embedding's numbers.
    let head = if config.tie_word_embeddings { of(Part::Embeddings) } else { of(Part::Head) };
    let always = [Part::Attention, Part::DenseMlp, Part::SharedExperts, Part::Router, Part::Norms];
    let active_parameters = always.into_iter().map(of).sum::<u64>() + routed + head;

    let mut notes = Vec::new();
    if of(Part::Unused) > 0 {
        notes.push("tensors that this program does not use are present; they are never read".to_owned());
    }
    Inspection {
        model_type: config.model_type.name().to_owned(),
        layers: config.num_layers,
        dense_layers: (0..config.num_layers).filter(|&layer| !config.is_moe_layer(layer)).count(),
        hidden_size: config.hidden_size,
        attention_heads: config.num_attention_heads,
        routed_experts: config.n_routed_experts,
        experts_per_token: config.num_experts_per_tok,
        shared_experts: config.n_shared_experts,
        quantization: config.quantization.describe().to_owned(),
        vocabulary: config.vocab_size,
        context: config.validated_context,
        shards: checkpoint.shard_count(),
        tensors: summaries.len(),
        parts: sizes.into_iter().filter(|size| size.bytes > 0).collect(),
        total_parameters: Part::ALL.into_iter().filter(|&part| part != Part::Unused).map(of).sum(),
        active_parameters,
        weight_bytes: checkpoint.total_bytes(),
        cache_values_per_token: (config.num_layers * config.cache_width()) as u64,
        notes,
    }
}

/// How many numbers of the model a tensor holds. Packed int4 holds eight in a word; scales and shapes hold none.
fn parameters(summary: &TensorSummary<'_>) -> u64 {
    let numbers: u64 = summary.shape.iter().map(|&size| size as u64).product();
    match summary.name.rsplit('.').next() {
        Some("weight_packed") if matches!(summary.dtype, Dtype::I32 | Dtype::U32) => numbers * 8,
        Some("weight_scale" | "weight_shape" | "weight_scale_inv") => 0,
        _ => numbers,
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<18} {value}");
        row("model type", &self.model_type)?;
        row("layers", &format!("{} ({} dense)", self.layers, self.dense_layers))?;
        row("hidden size", &self.hidden_size)?;
        row("attention heads", &self.attention_heads)?;
        let (routed, chosen, shared) = (self.routed_experts, self.experts_per_token, self.shared_experts);
        row("experts", &format!("{routed} routed, {chosen} a token, {shared} shared"))?;
        row("quantization", &self.quantization)?;
        row("vocabulary", &grouped(self.vocabulary as u64))?;
        row("context", &format!("{} tokens", grouped(self.context as u64)))?;
        row("files", &format!("{} with {} tensors", self.shards, grouped(self.tensors as u64)))?;
        row(
            "parameters",
            &format!("{} ({} a token)", count(self.total_parameters), count(self.active_parameters)),
        )?;

        writeln!(f, "\n{:<18} {:>12} {:>12}", "part", "parameters", "bytes")?;
        for size in &self.parts {
            writeln!(f, "{:<18} {:>12} {:>12}", size.part.name(), count(size.parameters), bytes(size.bytes))?;
        }
        writeln!(f, "{:<18} {:>12} {:>12}", "all", count(self.total_parameters), bytes(self.weight_bytes))?;

        let per_token = grouped(self.cache_bytes_per_token());
        writeln!(f, "\n{:<18} {per_token} bytes a token (16 bits a value)", "cache")?;
        let mut contexts = vec![4096, 32_768, self.context];
        contexts.retain(|&tokens| tokens <= self.context);
        contexts.dedup();
        for tokens in contexts {
            let needed = bytes(self.memory_bytes(tokens));
            let cache = bytes(self.cache_bytes_per_token() * tokens as u64);
            let label = format!("{} tokens", grouped(tokens as u64));
            writeln!(f, "{label:<18} {needed} of memory, {cache} of them cache")?;
        }
        for note in &self.notes {
            writeln!(f, "\nnote: {note}")?;
        }
        Ok(())
    }
}

/// 163840 as "163,840".
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with three or four digits: "1.03 T", "32.6 B", "940".
fn count(number: u64) -> String {
    scaled(number, 1000.0, &["", " K", " M", " B", " T"])
}

/// Bytes in binary units: "554.3 GiB".
fn bytes(number: u64) -> String {
    scaled(number, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

fn scaled(number: u64, step: f64, units: &[&str]) -> String {
    let mut value = number as f64;
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let decimals = if unit == 0 {
        0
    } else if value < 10.0 {
        2
    } else {
        1
    };
    format!("{value:.decimals$}{}", units[unit])
}
