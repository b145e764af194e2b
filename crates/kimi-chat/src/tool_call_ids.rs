//! Giving the tool calls of a conversation the ids the model itself would have written.
//!
//! Kimi numbers its calls over the whole conversation: `functions.get_weather:0`, `functions.search:1`, … Clients
//! rewrite those ids (`call_…`, `toolu_…`, `functions_get_weather_0`), and foreign ids push the model off its
//! distribution: empty turns, ids that do not parse. So a native id stays, every other becomes native, and the tool
//! messages follow.

use std::collections::HashSet;

use kimi_api::{ChatMessage, Role};

use crate::PromptError;

/// The ids to print, for every message: one for each call of an assistant message, one for a tool message.
///
/// They depend only on the messages before, so a longer conversation keeps the prefix of a shorter one.
pub(crate) fn native_ids(messages: &[ChatMessage]) -> Result<Vec<Vec<String>>, PromptError> {
    let mut used = HashSet::new();
    let mut calls = 0;
    let mut answers = Answers::default();
    let mut all = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let ids = match message.role {
            Role::Assistant => {
                let ids: Vec<String> = message
                    .tool_calls
                    .iter()
                    .zip(calls..)
                    .map(|(call, counter)| native_id(&call.id, &call.function.name, counter, &mut used))
                    .collect();
                calls += ids.len();
                answers
                    .expect(message.tool_calls.iter().map(|call| call.id.clone()).zip(ids.iter().cloned()));
                ids
            }
            Role::Tool => {
                let id = message.tool_call_id.as_deref().ok_or(PromptError::MissingToolCallId { index })?;
                vec![answers.resolve(id).ok_or_else(|| PromptError::ToolCallNotFound { id: id.to_owned() })?]
            }
            Role::System | Role::User => Vec::new(),
        };
        all.push(ids);
    }
    Ok(all)
}

/// `id` if it is native for `name` and new in this conversation, else the next free native one from `counter` on.
pub(crate) fn native_id(id: &str, name: &str, counter: usize, used: &mut HashSet<String>) -> String {
    if is_native(id, name) && used.insert(id.to_owned()) {
        return id.to_owned();
    }
    // One more candidate than there are used ids: one of them is free.
    let mut candidates = (counter..=counter + used.len()).map(|k| format!("functions.{name}:{k}"));
    let free = candidates.find(|candidate| !used.contains(candidate));
    let free = free.expect("invariant: more candidates than used ids");
    used.insert(free.clone());
    free
}

/// Whether `id` is `functions.NAME:IDX` with this name.
fn is_native(id: &str, name: &str) -> bool {
    let index = id
        .strip_prefix("functions.")
        .and_then(|rest| rest.strip_prefix(name))
        .and_then(|rest| rest.strip_prefix(':'));
    index.is_some_and(|index| !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The calls that tool messages may answer, oldest first.
#[derive(Default)]
struct Answers {
    calls: Vec<Call>,
    /// Where the calls of each assistant message begin.
    turns: Vec<usize>,
}

struct Call {
    sent: String,
    native: String,
    answered: bool,
}

impl Answers {
    fn expect(&mut self, calls: impl Iterator<Item = (String, String)>) {
        self.turns.push(self.calls.len());
        self.calls.extend(calls.map(|(sent, native)| Call { sent, native, answered: false }));
    }

    /// The native id behind a client's. Clients reuse ids over turns, so the nearest earlier assistant message wins;
    /// within one message, calls of the same id are answered in order.
    fn resolve(&mut self, sent: &str) -> Option<String> {
        let last = self.calls.iter().rposition(|call| call.sent == sent)?;
        let turn = self.turns.iter().rev().find(|&&start| start <= last).copied().unwrap_or(0);
        let open = (turn..=last).find(|&at| self.calls[at].sent == sent && !self.calls[at].answered);
        let call = &mut self.calls[open.unwrap_or(last)];
        call.answered = true;
        Some(call.native.clone())
    }
}
