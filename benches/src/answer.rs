//! One streamed answer and its times.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

/// A finished answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// When it was to be asked. In an open loop all times count from here, or a slow load generator would make
    /// the server look fast.
    pub(crate) due: Instant,
    pub(crate) sent: Instant,
    /// Arrival of each piece of reasoning, content or tool call; at least one.
    pub(crate) pieces: Vec<Instant>,
    pub(crate) end: Instant,
    pub(crate) usage: Usage,
    /// The answer without its reasoning.
    pub(crate) content: String,
}

/// Tokens as the server counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt: u64,
    /// Pieces when the server does not count.
    pub(crate) completion: u64,
    /// Prompt tokens found in a cache; `None` when the server does not say.
    pub(crate) cached: Option<u64>,
}

impl Answer {
    /// TTFT: until the first piece.
    pub(crate) fn first_token(&self) -> Duration {
        self.pieces[0] - self.due
    }

    /// ITL: between pieces that follow each other.
    pub(crate) fn gaps(&self) -> impl Iterator<Item = Duration> {
        self.pieces.windows(2).map(|pair| pair[1] - pair[0])
    }

    /// TPOT: mean time of a token after the first; `None` for an answer of one token.
    pub(crate) fn per_token(&self) -> Option<Duration> {
        let last = self.pieces[self.pieces.len() - 1];
        let tokens =
            u32::try_from(self.usage.completion).ok()?.checked_sub(1).filter(|&tokens| tokens > 0)?;
        Some((last - self.pieces[0]) / tokens)
    }

    pub(crate) fn end_to_end(&self) -> Duration {
        self.end - self.due
    }
}

/// The events of one answer as they arrive.
#[derive(Default)]
pub(crate) struct Recording {
    /// Bytes of a line that has not ended.
    line: Vec<u8>,
    pieces: Vec<Instant>,
    content: String,
    usage: Option<Usage>,
    done: bool,
}

impl Recording {
    /// Takes bytes in that arrived `now`; returns how many pieces they brought.
    pub(crate) fn push(&mut self, bytes: &[u8], now: Instant) -> Result<usize> {
        let before = self.pieces.len();
        self.line.extend_from_slice(bytes);
        while let Some(end) = self.line.iter().position(|&byte| byte == b'\n') {
            let rest = self.line.split_off(end + 1);
            let line = std::mem::replace(&mut self.line, rest);
            if let Some(data) = line.trim_ascii().strip_prefix(b"data:") {
                self.event(data.trim_ascii(), now)?;
            }
        }
        Ok(self.pieces.len() - before)
    }

    fn event(&mut self, data: &[u8], now: Instant) -> Result<()> {
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_slice(data).context("an event of the stream is not JSON")?;
        if let Some(error) = chunk.error {
            bail!("the stream ended with an error: {error}");
        }
        let delta = chunk.choices.into_iter().next().unwrap_or_default().delta;
        if delta.has_output() {
            self.pieces.push(now);
            self.content.push_str(&delta.content.unwrap_or_default());
        }
        self.usage = chunk.usage.as_ref().and_then(usage).or(self.usage);
        Ok(())
    }

    /// The answer, if the stream came to its end and brought something.
    pub(crate) fn finish(self, due: Instant, sent: Instant, end: Instant) -> Result<Answer> {
        ensure!(self.done, "the stream was cut: it ended without [DONE]");
        ensure!(!self.pieces.is_empty(), "the answer is empty");
        let counted = Usage { completion: self.pieces.len() as u64, ..Usage::default() };
        let usage = self.usage.unwrap_or(counted);
        Ok(Answer { due, sent, pieces: self.pieces, end, usage, content: self.content })
    }
}

/// An event, as far as it is looked at: every other field would cost the server's cores time, if the two share them.
#[derive(Deserialize)]
struct Chunk {
    error: Option<Value>,
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Value>,
}

#[derive(Default, Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Vec<IgnoredAny>>,
}

impl Delta {
    /// Whether it carries text or a part of a tool call; the first one often carries the role alone.
    fn has_output(&self) -> bool {
        let texts = [&self.content, &self.reasoning_content, &self.reasoning];
        texts.into_iter().flatten().any(|text| !text.is_empty()) || self.tool_calls.is_some()
    }
}

/// `OpenAI` puts the cached tokens into `prompt_tokens_details`, Moonshot beside the other counts.
pub(crate) fn usage(usage: &Value) -> Option<Usage> {
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64();
    Some(Usage {
        prompt: usage["prompt_tokens"].as_u64()?,
        completion: usage["completion_tokens"].as_u64()?,
        cached: cached.or(usage["cached_tokens"].as_u64()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The stream's bytes in slices of `size`, one millisecond apart.
    fn record(stream: &str, size: usize) -> Result<Answer> {
        let start = Instant::now();
        let mut recording = Recording::default();
        for (index, bytes) in stream.as_bytes().chunks(size).enumerate() {
            recording.push(bytes, start + Duration::from_millis(index as u64))?;
        }
        recording.finish(start, start, start + Duration::from_secs(1))
    }

    const STREAM: &str = concat!(
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\n\n",
        ": a comment\n\n",
        "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"h\"}}]}\r\n\r\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"i\"}}]}\n\n",
        "data:{\"choices\":[{\"delta\":{\"content\":\"ß\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,\"cached_tokens\":4}}\n\n",
        "data: [DONE]\n\n",
    );

    #[test]
    fn a_stream_is_read_whatever_the_network_splits() {
        for size in [1, 7, 64, 10_000] {
            let answer = record(STREAM, size).unwrap();
            assert_eq!((answer.pieces.len(), answer.content.as_str()), (3, "iß"));
            assert_eq!(answer.usage, Usage { prompt: 9, completion: 3, cached: Some(4) });
            assert_eq!(answer.gaps().sum::<Duration>(), answer.per_token().unwrap() * 2);
            assert_eq!(answer.end_to_end(), Duration::from_secs(1));
        }
    }

    #[test]
    fn streams_that_did_not_go_well_are_errors() {
        let error = |stream: &str| record(stream, 9).unwrap_err().to_string();
        assert_eq!(
            error(STREAM.split("data: [DONE]").next().unwrap()),
            "the stream was cut: it ended without [DONE]"
        );
        assert_eq!(error("data: [DONE]\n\n"), "the answer is empty");
        assert_eq!(
            error("data: {\"error\":{\"message\":\"no\"}}\n\n"),
            "the stream ended with an error: {\"message\":\"no\"}"
        );
        assert_eq!(error("data: {\n\n"), "an event of the stream is not JSON");
    }

    #[test]
    fn both_places_of_cached_tokens_are_read() {
        let openai = json!({"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 8}});
        assert_eq!(usage(&openai).unwrap().cached, Some(8));
        assert_eq!(usage(&json!({"prompt_tokens": 9, "completion_tokens": 1})).unwrap().cached, None);
        assert_eq!(usage(&Value::Null), None);
    }
}
