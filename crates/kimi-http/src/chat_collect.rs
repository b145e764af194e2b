//! A whole chat answer: the events of a streamed one, folded.

use kimi_api::{
    AnswerMessage, Arguments, ChatChoice, ChatCompletion, ChoiceLogprobs, FinishReason, FunctionCall, Role,
    TokenLogprob, ToolCall, ToolCallKind,
};
use kimi_tokens::TokenId;

use crate::ApiError;
use crate::chat_stream::AnswerHead;
use crate::choices::{ChoiceEvent, Choices};
use crate::generation::AnswerEvent;

/// Reads all answers to their ends.
pub(crate) async fn collect(mut choices: Choices, head: AnswerHead) -> Result<ChatCompletion, ApiError> {
    let reasoning = choices.shows_reasoning().then(String::new);
    let mut answers = vec![Answer { reasoning, ..Answer::default() }; choices.len()];
    while let Some(event) = choices.next().await {
        let ChoiceEvent { index, event, token_ids } = event?;
        answers[index].add(event);
        if let Some(ids) = token_ids {
            answers[index].token_ids.get_or_insert_default().extend(ids);
        }
    }
    let finished: Option<Vec<ChatChoice>> = answers
        .into_iter()
        .enumerate()
        .map(|(index, answer)| answer.into_choice(index, head.reasoning_alias))
        .collect();
    Ok(ChatCompletion {
        choices: finished.ok_or_else(|| choices.broken_off())?,
        id: head.id,
        object: ChatCompletion::OBJECT,
        created: head.created,
        model: head.model,
        usage: choices.usage(),
        prompt_token_ids: choices.prompt_token_ids(0).map(<[TokenId]>::to_vec),
    })
}

/// What was said so far.
#[derive(Clone, Default)]
struct Answer {
    content: String,
    /// `None` until there is reasoning.
    reasoning: Option<String>,
    tool_calls: Vec<(String, String, String)>,
    logprobs: Option<Vec<TokenLogprob>>,
    token_ids: Option<Vec<TokenId>>,
    /// `None` until the end.
    reason: Option<FinishReason>,
}

impl Answer {
    fn add(&mut self, event: AnswerEvent) {
        match event {
            // Only the older route asks for it.
            AnswerEvent::Prompt(_) => {}
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
            AnswerEvent::Finished { reason, .. } => self.reason = Some(reason),
        }
    }

    fn into_choice(self, index: usize, reasoning_alias: bool) -> Option<ChatChoice> {
        let tool_calls = self.tool_calls.into_iter().map(|(id, name, arguments)| ToolCall {
            id,
            kind: ToolCallKind::Function,
            function: FunctionCall { name, arguments: Arguments::Text(arguments) },
        });
        let message = AnswerMessage {
            role: Role::Assistant,
            content: self.content,
            reasoning: if reasoning_alias { self.reasoning.clone() } else { None },
            reasoning_content: self.reasoning,
            tool_calls: tool_calls.collect(),
        };
        Some(ChatChoice {
            index,
            message,
            logprobs: self.logprobs.map(|content| ChoiceLogprobs { content }),
            finish_reason: self.reason?,
            token_ids: self.token_ids,
        })
    }
}
