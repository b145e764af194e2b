//! What a parser must know of the request.

use kimi_api::Tool;

use crate::{Conversation, OutputStart, StopStrings};

/// What the prompt and the request decide about parsing the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParserOptions {
    /// The state the prompt ends in.
    pub start: OutputStart,
    /// End the content; they do not apply to reasoning and tool calls.
    pub stop_strings: StopStrings,
    /// The number of the first call, for ids the model did not write well: calls in the conversation so far.
    pub first_tool_index: usize,
    /// The declared tools, to name a call that came with a bare number.
    pub tools: Vec<ToolSignature>,
}

/// A tool's name and the names of its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolSignature {
    /// The function's name.
    pub name: String,
    /// The properties of its schema.
    pub arguments: Vec<String>,
}

impl ParserOptions {
    /// The options that fit the prompt of this conversation.
    pub fn for_conversation(conversation: &Conversation, stop_strings: StopStrings) -> Self {
        Self {
            start: conversation.output_start(),
            stop_strings,
            first_tool_index: conversation.past_tool_calls(),
            tools: conversation.tools.iter().map(ToolSignature::of).collect(),
        }
    }
}

impl ToolSignature {
    fn of(tool: &Tool) -> Self {
        let schema = tool.function.parameters.as_ref();
        let properties = schema.and_then(|schema| schema["properties"].as_object());
        let arguments = properties.map_or_else(Vec::new, |properties| properties.keys().cloned().collect());
        Self { name: tool.function.name.clone(), arguments }
    }
}
