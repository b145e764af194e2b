//! What an answer repeats of its request.

use kimi_api::responses::{Response, ResponseStatus, ResponsesRequest};
use serde_json::{Map, Value, json};

/// What an answer repeats of its request.
#[derive(Debug)]
pub(crate) struct Echo {
    instructions: Option<String>,
    max_output_tokens: Option<i64>,
    metadata: Map<String, Value>,
    model: String,
    parallel_tool_calls: bool,
    reasoning: Value,
    text: Value,
    tool_choice: Value,
    tools: Vec<Value>,
    /// The reasoning is delivered as its own summary.
    pub(super) summary: bool,
}

impl Echo {
    /// Notes what will be repeated.
    pub(super) fn of(request: &ResponsesRequest) -> Self {
        let reasoning = request.reasoning.clone().unwrap_or_default();
        let format = request.text.as_ref().and_then(|text| text.format.clone());
        Self {
            instructions: request.instructions.clone(),
            max_output_tokens: request.max_output_tokens,
            metadata: request.metadata.clone().unwrap_or_default(),
            model: request.model.clone(),
            parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
            text: json!({"format": format.map_or_else(|| json!({"type": "text"}), Value::Object)}),
            tool_choice: request
                .tool_choice
                .as_ref()
                .map_or_else(|| json!("auto"), |choice| choice.raw.clone()),
            tools: request.tools.clone(),
            summary: reasoning.summary.is_some(),
            reasoning: json!(reasoning),
        }
    }

    /// The answer before anything is in it. `temperature` and `top_p` are those that are used.
    pub(crate) fn begin(self, request_id: &str, created_at: u64, temperature: f32, top_p: f32) -> Response {
        Response {
            id: format!("resp_{request_id}"),
            object: Response::OBJECT,
            created_at,
            status: ResponseStatus::InProgress,
            error: None,
            incomplete_details: None,
            instructions: self.instructions,
            max_output_tokens: self.max_output_tokens,
            metadata: self.metadata,
            model: self.model,
            output: Vec::new(),
            parallel_tool_calls: self.parallel_tool_calls,
            previous_response_id: None,
            reasoning: self.reasoning,
            store: false,
            temperature,
            text: self.text,
            tool_choice: self.tool_choice,
            tools: self.tools,
            top_p,
            truncation: "disabled",
            usage: None,
        }
    }
}
