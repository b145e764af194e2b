//! `GET /v1/models` and `GET /v1/models/{id}`.

use schemars::JsonSchema;
use serde::Serialize;

/// All models this server answers for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ModelList {
    /// Always `list`.
    pub object: &'static str,
    /// The models.
    pub data: Vec<Model>,
}

impl ModelList {
    /// A list of `data`.
    pub fn new(data: Vec<Model>) -> Self {
        Self { object: "list", data }
    }
}

/// One model and what it can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Model {
    /// Its name, to be sent as `model`.
    pub id: String,
    /// Always [`Model::OBJECT`].
    pub object: &'static str,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// Who made it.
    pub owned_by: String,
    /// Tokens a prompt and its answer may have together, as configured here.
    pub context_length: usize,
    /// The same number under the name other servers use.
    pub max_model_len: usize,
    /// Whether messages may carry images.
    pub supports_image_in: bool,
    /// Whether messages may carry videos.
    pub supports_video_in: bool,
    /// Whether it can think before it answers.
    pub supports_reasoning: bool,
}

impl Model {
    /// The value of `object`.
    pub const OBJECT: &'static str = "model";
}
