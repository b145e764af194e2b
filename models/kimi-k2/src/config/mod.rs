//! `config.json`, typed and checked: everything a forward pass needs to know before it sees a tensor.

mod fields;
mod quantization;
mod validate;
mod vision;

use kimi_kernels::DenseDtype;
use serde_json::{Value, json};

use crate::CheckpointError;
use fields::Fields;
pub use quantization::{ModulePattern, Quantization};
pub use vision::VisionConfig;

/// Which of the supported configuration layouts a checkpoint uses. The mathematics is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelType {
    /// K2.5 and K2.6: the text model in `text_config`, beside a vision tower.
    KimiK25,
    /// K2-Instruct, K2-Thinking: flat.
    KimiK2,
    /// Moonlight and other `DeepSeek`-V3 shaped models: flat.
    DeepseekV3,
}

impl ModelType {
    /// The spelling in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::KimiK25 => "kimi_k25",
            Self::KimiK2 => "kimi_k2",
            Self::DeepseekV3 => "deepseek_v3",
        }
    }
}

/// YaRN position scaling, with the field names of `config.json`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YarnScaling {
    /// How much longer than the original the context is.
    pub factor: f64,
    /// Rotations above which a frequency stays as it was. May equal `beta_slow` (K2-Instruct).
    pub beta_fast: f64,
    /// Rotations below which a frequency is divided by `factor`.
    pub beta_slow: f64,
    /// Numerator of the cos/sin multiplier `m(factor, mscale) / m(factor, mscale_all_dim)`.
    pub mscale: f64,
    /// Its denominator; when not 0, the softmax scale is multiplied by `m(factor, mscale_all_dim)²`.
    pub mscale_all_dim: f64,
    /// Context length before scaling.
    pub original_max_position_embeddings: usize,
}

/// The text model's dimensions and choices. Field names follow `config.json` where they can.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Layout of the configuration.
    pub model_type: ModelType,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// `num_hidden_layers`: decoder layers, multi-token-prediction layers not counted.
    pub num_layers: usize,
    /// Layers at the beginning that have a dense MLP.
    pub first_k_dense_replace: usize,
    /// Every how many layers there is an MoE one, at least 1.
    pub moe_layer_freq: usize,
    /// Inner width of a dense layer's MLP.
    pub intermediate_size: usize,
    /// Inner width of one routed expert.
    pub moe_intermediate_size: usize,
    /// Routed experts of an MoE layer; 0 when every layer is dense.
    pub n_routed_experts: usize,
    /// Shared experts; they are stored as one MLP of inner width `n_shared_experts * moe_intermediate_size`.
    pub n_shared_experts: usize,
    /// Routed experts that a token uses.
    pub num_experts_per_tok: usize,
    /// Expert groups, at least 1 where there are experts.
    pub n_group: usize,
    /// Groups that a token may use.
    pub topk_group: usize,
    /// Whether the chosen experts' weights are divided by their sum.
    pub norm_topk_prob: bool,
    /// What they are multiplied with then.
    pub routed_scaling_factor: f64,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the query's bottleneck; `None`: one plain `q_proj`.
    pub q_lora_rank: Option<usize>,
    /// Width of the cached latent.
    pub kv_lora_rank: usize,
    /// Part of a query or key head without position.
    pub qk_nope_head_dim: usize,
    /// Part with rotary position, even.
    pub qk_rope_head_dim: usize,
    /// Width of a value head.
    pub v_head_dim: usize,
    /// Epsilon of the layer norms and the final norm.
    pub rms_norm_eps: f64,
    /// Epsilon of `q_a_layernorm` and `kv_a_layernorm`: 1e-6 in Moonshot's code whatever `rms_norm_eps` is; the field
    /// `mla_norm_eps` in `config.json` overrides it.
    pub mla_norm_eps: f64,
    /// How many positions there are: no context is longer.
    pub max_position_embeddings: usize,
    /// Longest context the model was validated for, in tokens: `max_length` of `generation_config.json` where that is less
    /// than `max_position_embeddings`, which it is otherwise.
    pub validated_context: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Context extension, if any.
    pub rope_scaling: Option<YarnScaling>,
    /// Whether the head is the embedding. [`crate::Checkpoint::linear`] takes care of it.
    pub tie_word_embeddings: bool,
    /// What `config.json` says about unquantized weights; the tensors themselves decide.
    pub dtype: Option<DenseDtype>,
    /// Begin of a text.
    pub bos_token_id: Option<u32>,
    /// Tokens that end an answer, of `config.json` and `generation_config.json` together, ascending.
    pub eos_token_ids: Vec<u32>,
    /// Padding.
    pub pad_token_id: Option<u32>,
    /// The token whose positions take image features.
    pub media_placeholder_token_id: Option<u32>,
    /// How weights are stored.
    pub quantization: Quantization,
    /// The vision tower, if the checkpoint has one.
    pub vision: Option<VisionConfig>,
}

/// What `generation_config.json` adds.
#[derive(Default)]
struct Generation {
    eos_token_ids: Vec<u32>,
    max_length: Option<usize>,
}

impl Generation {
    fn parse(json: &[u8]) -> Result<Self, CheckpointError> {
        const FILE: &str = "generation_config.json";
        let value = parse_json(FILE, json)?;
        let read = |fields: Fields<'_>| {
            let eos_token_ids = fields.token_ids("eos_token_id")?;
            let max_length = fields.optional_usize("max_length")?;
            max_length.map_or(Ok(()), |tokens| validate::length(&fields, "max_length", tokens))?;
            Ok(Self { eos_token_ids, max_length })
        };
        Fields::of(&value, "").and_then(read).map_err(|error: CheckpointError| error.file(FILE))
    }
}

impl ModelConfig {
    /// Reads `config.json` and, where there is one, `generation_config.json`.
    ///
    /// # Errors
    /// Malformed JSON, a missing or impossible value, or a kind of model that this crate does not compute.
    pub fn parse(config_json: &[u8], generation_config_json: Option<&[u8]>) -> Result<Self, CheckpointError> {
        let root = parse_json("config.json", config_json)?;
        let top = Fields::of(&root, "")?;
        let model_type = model_type(&top)?;
        let nested = (model_type == ModelType::KimiK25)
            .then(|| {
                top.object("text_config")?
                    .ok_or_else(|| top.impossible("text_config", "an object", "nothing"))
            })
            .transpose()?;
        let text = nested.as_ref().unwrap_or(&top);
        check_algorithms(text)?;

        let generation = generation_config_json.map(Generation::parse).transpose()?.unwrap_or_default();
        let mut eos_token_ids = [top.token_ids("eos_token_id")?, text.token_ids("eos_token_id")?].concat();
        eos_token_ids.extend(generation.eos_token_ids);
        eos_token_ids.sort_unstable();
        eos_token_ids.dedup();

        let either = |name: &str| -> Result<Option<u32>, CheckpointError> {
            Ok(text.token_ids(name)?.first().copied().or(top.token_ids(name)?.first().copied()))
        };
        let (rope_theta, rope_scaling) = rope(text)?;
        let quantization = match text.object("quantization_config")? {
            Some(fields) => Quantization::read(&fields)?,
            None => top
                .object("quantization_config")?
                .map_or(Ok(Quantization::None), |f| Quantization::read(&f))?,
        };
        let n_routed_experts = text.usize_or("n_routed_experts", 0)?;
        // What only an MoE model has must be there when there are experts, and may be absent when there are none.
        let moe = |name: &str| if n_routed_experts > 0 { text.usize(name) } else { text.usize_or(name, 0) };
        let hidden_size = text.usize("hidden_size")?;
        let max_position_embeddings = text.usize("max_position_embeddings")?;
        let vision = top.object("vision_config")?;
        let vision = vision.map(|fields| VisionConfig::read(&fields, hidden_size)).transpose()?;
        let config = Self {
            model_type,
            vocab_size: text.usize("vocab_size")?,
            hidden_size,
            num_layers: text.usize("num_hidden_layers")?,
            first_k_dense_replace: moe("first_k_dense_replace")?,
            moe_layer_freq: text.usize_or("moe_layer_freq", 1)?,
            intermediate_size: text.usize_or("intermediate_size", 0)?,
            moe_intermediate_size: moe("moe_intermediate_size")?,
            n_routed_experts,
            n_shared_experts: text.usize_or("n_shared_experts", 0)?,
            num_experts_per_tok: moe("num_experts_per_tok")?,
            n_group: moe("n_group")?,
            topk_group: moe("topk_group")?,
            norm_topk_prob: text.bool_or("norm_topk_prob", true)?,
            routed_scaling_factor: match n_routed_experts {
                0 => 1.0,
                _ => text.f64("routed_scaling_factor")?,
            },
            num_attention_heads: text.usize("num_attention_heads")?,
            q_lora_rank: text.optional_usize("q_lora_rank")?,
            kv_lora_rank: text.usize("kv_lora_rank")?,
            qk_nope_head_dim: text.usize("qk_nope_head_dim")?,
            qk_rope_head_dim: text.usize("qk_rope_head_dim")?,
            v_head_dim: text.usize("v_head_dim")?,
            rms_norm_eps: text.f64_or("rms_norm_eps", 1e-6)?,
            mla_norm_eps: text
                .optional_f64("mla_norm_eps")?
                .map_or_else(|| top.f64_or("mla_norm_eps", 1e-6), Ok)?,
            max_position_embeddings,
            validated_context: generation
                .max_length
                .unwrap_or(max_position_embeddings)
                .min(max_position_embeddings),
            rope_theta,
            rope_scaling,
            tie_word_embeddings: text.bool_or("tie_word_embeddings", false)?,
            dtype: dtype(text)?.or(dtype(&top)?),
            bos_token_id: either("bos_token_id")?,
            eos_token_ids,
            pad_token_id: either("pad_token_id")?,
            media_placeholder_token_id: either("media_placeholder_token_id")?,
            quantization,
            vision,
        };
        validate::check(&config, text)?;
        Ok(config)
    }

    /// Whether `layer` has routed experts (otherwise a dense MLP).
    pub fn is_moe_layer(&self, layer: usize) -> bool {
        self.n_routed_experts > 0
            && layer >= self.first_k_dense_replace
            && layer.is_multiple_of(self.moe_layer_freq)
    }

    /// Width of a query or key head: the part without and the part with position.
    pub fn qk_head_dim(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }

    /// Values that the cache keeps for a token and layer: the latent and the rotated key (576 for K2).
    pub fn cache_width(&self) -> usize {
        self.kv_lora_rank + self.qk_rope_head_dim
    }

    /// Inner width of the shared experts' MLP.
    pub fn shared_intermediate_size(&self) -> usize {
        self.n_shared_experts * self.moe_intermediate_size
    }
}

/// Parses the JSON of `file`.
pub(crate) fn parse_json(file: &str, bytes: &[u8]) -> Result<Value, CheckpointError> {
    serde_json::from_slice(bytes).map_err(|error| {
        CheckpointError::new("malformed JSON")
            .file(file)
            .expected("one JSON object")
            .found(error)
            .advice("download the file again")
    })
}

fn model_type(top: &Fields<'_>) -> Result<ModelType, CheckpointError> {
    let found = top.text("model_type")?;
    match found {
        Some("kimi_k25") => Ok(ModelType::KimiK25),
        Some("kimi_k2") => Ok(ModelType::KimiK2),
        Some("deepseek_v3") => Ok(ModelType::DeepseekV3),
        _ => Err(CheckpointError::new("unknown model_type")
            .file("config.json")
            .expected("kimi_k25, kimi_k2 or deepseek_v3")
            .found(found.unwrap_or("nothing"))
            .advice("this program serves the Kimi K2 family only; choose such a checkpoint")),
    }
}

/// Refuses what would be computed wrongly rather than not at all.
fn check_algorithms(text: &Fields<'_>) -> Result<(), CheckpointError> {
    text.only("hidden_act", &json!("silu"))?;
    text.only("scoring_func", &json!("sigmoid"))?;
    text.only("topk_method", &json!("noaux_tc"))?;
    text.only("attention_bias", &json!(false))?;
    text.only("rope_interleave", &json!(true))
}

/// `rope_theta` and the scaling. Older files have `rope_theta` and `rope_scaling`, newer ones both in `rope_parameters`.
fn rope(text: &Fields<'_>) -> Result<(f64, Option<YarnScaling>), CheckpointError> {
    let scaling = match text.object("rope_parameters")? {
        Some(fields) => Some(fields),
        None => text.object("rope_scaling")?,
    };
    let inner_theta = scaling.as_ref().map(|fields| fields.optional_f64("rope_theta")).transpose()?.flatten();
    let theta = match text.optional_f64("rope_theta")?.or(inner_theta) {
        Some(theta) => theta,
        None => text.f64("rope_theta")?,
    };
    let Some(fields) = scaling else { return Ok((theta, None)) };
    let kind = fields.text("rope_type")?.or(fields.text("type")?);
    match kind {
        None | Some("default") => Ok((theta, None)),
        Some("yarn") => {
            fields.only("truncate", &json!(true))?;
            fields.only_null("attention_factor")?;
            let yarn = YarnScaling {
                factor: fields.f64("factor")?,
                beta_fast: fields.f64_or("beta_fast", 32.0)?,
                beta_slow: fields.f64_or("beta_slow", 1.0)?,
                mscale: fields.f64_or("mscale", 1.0)?,
                mscale_all_dim: fields.f64_or("mscale_all_dim", 0.0)?,
                original_max_position_embeddings: fields.usize("original_max_position_embeddings")?,
            };
            Ok((theta, Some(yarn)))
        }
        Some(other) => Err(fields.unsupported("type", "yarn, default or null", &json!(other))),
    }
}

/// `dtype`, spelled `torch_dtype` by older writers.
fn dtype(fields: &Fields<'_>) -> Result<Option<DenseDtype>, CheckpointError> {
    let name = fields.text("dtype")?.or(fields.text("torch_dtype")?);
    Ok(match name.map(|name| name.trim_start_matches("torch.")) {
        Some("bfloat16") => Some(DenseDtype::Bf16),
        Some("float16") => Some(DenseDtype::F16),
        Some("float32") => Some(DenseDtype::F32),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
