//! A streamed chat answer: events become chunks, one `data:` line each.

use std::future::Future;

use kimi_api::{
    ChatCompletion, ChatCompletionChunk, ChoiceLogprobs, ChunkChoice, Delta, FunctionDelta, Role,
    ToolCallDelta, ToolCallKind, Usage,
};
use kimi_tokens::TokenId;

use crate::ApiError;
use crate::chat_collect::collect;
use crate::choices::{ChoiceEvent, Choices};
use crate::generation::AnswerEvent;
use crate::sse::{Framing, write_data, write_done};

/// What every chunk of an answer repeats, and how the answer is written.
#[derive(Clone, Debug)]
pub(crate) struct AnswerHead {
    /// `chatcmpl-…`.
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// The model's name as the request spelled it.
    pub(crate) model: String,
    /// A last chunk carries the usage, and all others say `"usage": null`.
    pub(crate) include_usage: bool,
    /// The reasoning under its second name, too.
    pub(crate) reasoning_alias: bool,
}

impl Framing for AnswerHead {
    type Whole = ChatCompletion;

    fn collect(self, choices: Choices) -> impl Future<Output = Result<ChatCompletion, ApiError>> + Send {
        collect(choices, self)
    }

    fn begin(&mut self, choices: &Choices, out: &mut Vec<u8>) {
        for index in 0..choices.len() {
            let delta = Delta { role: Some(Role::Assistant), content: Some(""), ..Delta::default() };
            let prompt = if index == 0 { choices.prompt_token_ids(0) } else { None };
            self.write(&[ChunkChoice { index, delta, ..ChunkChoice::default() }], None, prompt, out);
        }
    }

    fn event(&mut self, ChoiceEvent { index, mut event, token_ids }: ChoiceEvent, out: &mut Vec<u8>) {
        let mut choice =
            ChunkChoice { index, token_ids: token_ids.unwrap_or_default(), ..ChunkChoice::default() };
        match &mut event {
            // Only the older route asks for it.
            AnswerEvent::Prompt(_) => return,
            AnswerEvent::Reasoning(text) => {
                choice.delta.reasoning_content = Some(text);
                choice.delta.reasoning = self.reasoning_alias.then_some(text.as_str());
            }
            AnswerEvent::Content { text, logprobs } => {
                choice.delta.content = Some(text);
                choice.logprobs = logprobs.take().map(|content| ChoiceLogprobs { content });
            }
            AnswerEvent::ToolCallStarted { index, id, name } => {
                let function = FunctionDelta { name: Some(name), arguments: "" };
                let kind = Some(ToolCallKind::Function);
                choice.delta.tool_calls =
                    Some([ToolCallDelta { index: *index, id: Some(id), kind, function }]);
            }
            AnswerEvent::ToolArguments { index, json } => {
                let function = FunctionDelta { name: None, arguments: json };
                choice.delta.tool_calls =
                    Some([ToolCallDelta { index: *index, function, ..ToolCallDelta::default() }]);
            }
            AnswerEvent::Finished { reason, usage, .. } => {
                choice.finish_reason = Some(*reason);
                choice.usage = Some(*usage);
            }
        }
        self.write(&[choice], None, None, out);
    }

    fn end(&mut self, usage: Usage, out: &mut Vec<u8>) {
        if self.include_usage {
            self.write(&[], Some(usage), None, out);
        }
        write_done(out);
    }
}

impl AnswerHead {
    fn write(
        &self,
        choices: &[ChunkChoice<'_>],
        usage: Option<Usage>,
        prompt_token_ids: Option<&[TokenId]>,
        out: &mut Vec<u8>,
    ) {
        let chunk = ChatCompletionChunk {
            id: &self.id,
            object: ChatCompletionChunk::OBJECT,
            created: self.created,
            model: &self.model,
            choices,
            usage: self.include_usage.then_some(usage),
            prompt_token_ids,
        };
        write_data(&chunk, out);
    }
}
