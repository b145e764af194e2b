//! `quantization_config`: which modules are stored in few bits, and how.

use regex::Regex;
use serde_json::json;

use super::fields::Fields;
use crate::CheckpointError;

/// How a checkpoint stores its linear layers.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Quantization {
    /// As numbers of 16 or 32 bits.
    #[default]
    None,
    /// compressed-tensors `pack-quantized`: symmetric int4 in groups of 32 along the input.
    Int4Group32 {
        /// Modules it applies to; "Linear" stands for every linear layer.
        targets: Vec<ModulePattern>,
        /// Modules it does not apply to; stronger than `targets`.
        ignore: Vec<ModulePattern>,
    },
    /// e4m3 with a scale for each block of 128 × 128.
    Fp8Block128 {
        /// Modules it does not apply to.
        ignore: Vec<ModulePattern>,
    },
}

/// A name or a pattern of names of modules, as `quantization_config` lists them.
#[derive(Clone, Debug)]
pub struct ModulePattern {
    source: String,
    regex: Option<Regex>,
}

impl PartialEq for ModulePattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl ModulePattern {
    /// `re:` begins a regular expression that must match from the start of the name (Python's `re.match`); anything
    /// else is a name, whole or in whole parts between dots.
    ///
    /// # Errors
    /// The regular expression is malformed, or uses what the linear-time engine leaves out (look-around).
    pub fn new(source: &str) -> Result<Self, CheckpointError> {
        let regex =
            source.strip_prefix("re:").map(|pattern| Regex::new(&format!("^(?:{pattern})"))).transpose();
        let regex = regex.map_err(|error| {
            CheckpointError::new("unusable pattern in quantization_config")
                .file("config.json")
                .expected("a regular expression without look-around")
                .found(format!("{source:?} ({})", error.to_string().lines().last().unwrap_or_default()))
                .advice("rewrite the pattern")
        })?;
        Ok(Self { source: source.to_owned(), regex })
    }

    /// Whether the pattern means `module`, a dotted name.
    pub fn matches(&self, module: &str) -> bool {
        match &self.regex {
            Some(regex) => regex.is_match(module),
            // Whole parts: "lm_head" means "language_model.lm_head" and "self_attn" all that is inside,
            // but "gate" does not mean "gate_proj".
            None => format!(".{module}.").contains(&format!(".{}.", self.source)),
        }
    }

    /// Whether it stands for every linear layer.
    pub fn is_any_linear(&self) -> bool {
        self.source == "Linear"
    }
}

impl Quantization {
    /// Reads `quantization_config`; anything but the two known schemes is refused.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, CheckpointError> {
        match fields.text("quant_method")? {
            Some("compressed-tensors") => read_compressed_tensors(fields),
            Some("fp8") => read_fp8(fields),
            other => Err(unknown("quant_method", "compressed-tensors or fp8", other.unwrap_or("nothing"))),
        }
    }

    /// A few words for people.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Int4Group32 { .. } => "int4, groups of 32 (compressed-tensors pack-quantized)",
            Self::Fp8Block128 { .. } => "fp8 e4m3, blocks of 128 × 128",
        }
    }
}

fn read_compressed_tensors(fields: &Fields<'_>) -> Result<Quantization, CheckpointError> {
    let format = fields.text("format")?.unwrap_or("nothing");
    if format != "pack-quantized" {
        return Err(unknown("format", "pack-quantized", format));
    }
    fields.only_null("kv_cache_scheme")?;
    let groups = fields.get("config_groups").and_then(serde_json::Value::as_object);
    let groups = groups.filter(|groups| !groups.is_empty());
    let groups = groups.ok_or_else(|| fields.impossible("config_groups", "at least one group", "none"))?;
    let mut targets = Vec::new();
    for (name, group) in groups {
        let group = Fields::of(group, &format!("quantization_config.config_groups.{name}"))?;
        group.only_null("input_activations")?;
        group.only_null("output_activations")?;
        group.only("format", &json!("pack-quantized"))?;
        let weights =
            group.object("weights")?.ok_or_else(|| group.impossible("weights", "an object", "nothing"))?;
        weights.exactly("num_bits", &json!(4))?;
        weights.exactly("group_size", &json!(32))?;
        weights.only("type", &json!("int"))?;
        weights.only("symmetric", &json!(true))?;
        weights.only("strategy", &json!("group"))?;
        weights.only("dynamic", &json!(false))?;
        weights.only_null("actorder")?;
        targets.extend(patterns(&group, "targets")?);
    }
    Ok(Quantization::Int4Group32 { targets, ignore: patterns(fields, "ignore")? })
}

fn read_fp8(fields: &Fields<'_>) -> Result<Quantization, CheckpointError> {
    fields.only("fmt", &json!("e4m3"))?;
    fields.exactly("weight_block_size", &json!([128, 128]))?;
    let ignore = [patterns(fields, "modules_to_not_convert")?, patterns(fields, "ignored_layers")?].concat();
    Ok(Quantization::Fp8Block128 { ignore })
}

fn patterns(fields: &Fields<'_>, name: &str) -> Result<Vec<ModulePattern>, CheckpointError> {
    fields.texts(name)?.into_iter().map(ModulePattern::new).collect()
}

fn unknown(field: &str, wanted: &str, found: &str) -> CheckpointError {
    CheckpointError::new(format!("unknown quantization: quantization_config.{field}"))
        .file("config.json")
        .expected(wanted)
        .found(found)
        .advice("use the checkpoint as Moonshot published it, or one in bf16")
}
