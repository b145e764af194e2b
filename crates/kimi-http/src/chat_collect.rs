//! A whole answer: the events of a streamed one, folded.

use kimi_api::{
    AnswerMessage, Arguments, ChatChoice, ChatCompletion, ChoiceLogprobs, FunctionCall, Role, TokenLogprob,
    ToolCall, ToolCallKind,
};

use crate::ApiError;
use crate::chat_stream::AnswerHead;
use crate::generation::{AnswerEvent, Generation};

/// Reads a generation to its end. The caller's future owns the generation: when the client leaves, both are dropped.
pub(crate) async fn collect(
    mut generation: Generation,
    head: AnswerHead,
) -> Result<ChatCompletion, ApiError> {
    let mut answer = Answer::default();
    if generation.shows_reasoning() {
        answer.reasoning = Some(String::new());
    }
    while let Some(event) = generation.next().await {
        match event? {
            AnswerEvent::Finished { reason, usage } => {
                let choice = ChatChoice {
                    index: 0,
                    logprobs: answer.logprobs.take().map(|content| ChoiceLogprobs { content }),
                    message: answer.into_message(head.reasoning_alias),
                    finish_reason: reason,
                };
                return Ok(ChatCompletion {
                    id: head.id,
                    object: ChatCompletion::OBJECT,
                    created: head.created,
                    model: head.model,
                    choices: vec![choice],
                    usage,
                });
            }
            event => answer.add(event),
        }
    }
    Err(ApiError::internal(&head.id, "The answer broke off"))
}

/// What was said so far.
#[derive(Default)]
struct Answer {
    content: String,
    /// `None` until there is reasoning.
    reasoning: Option<String>,
    tool_calls: Vec<(String, String, String)>,
    logprobs: Option<Vec<TokenLogprob>>,
}

impl Answer {
    fn add(&mut self, event: AnswerEvent) {
        match event {
            AnswerEvent::Reasoning(text) => self.reasoning.get_or_insert_default().push_str(&text),
            AnswerEvent::Content { text, logprobs } => {
                self.content.push_str(&text);
                if let Some(logprobs) = logprobs {
                    self.logprobs.get_or_insert_default().extend(logprobs);
                }
            }
            AnswerEvent::ToolCallStarted { id, name, .. } => self.tool_calls.push((id, name, String::new())),
            AnswerEvent::ToolArguments { index, json } => {
                if let Some((_, _, arguments)) = self.tool_calls.get_mut(index) {
                    arguments.push_str(&json);
                }
            }
            AnswerEvent::Finished { .. } => {}
        }
    }

    fn into_message(self, reasoning_alias: bool) -> AnswerMessage {
        let tool_calls = self.tool_calls.into_iter().map(|(id, name, arguments)| ToolCall {
            id,
            kind: ToolCallKind::Function,
            function: FunctionCall { name, arguments: Arguments::Text(arguments) },
        });
        AnswerMessage {
            role: Role::Assistant,
            content: self.content,
            reasoning: if reasoning_alias { self.reasoning.clone() } else { None },
            reasoning_content: self.reasoning,
            tool_calls: tool_calls.collect(),
        }
    }
}
