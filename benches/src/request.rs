//! One request's body: the sampling options of a run around a conversation's messages.

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// How every request is asked, as options.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct RequestArgs {
    /// Sampling temperature; 0 is greedy
    #[arg(long, default_value_t = 0.0, help_heading = "Requests")]
    pub(crate) temperature: f32,
    /// Send `ignore_eos`: every answer is as long as wanted (kimi-serve and most others)
    #[arg(long, help_heading = "Requests")]
    pub(crate) ignore_eos: bool,
    /// Send `min_tokens` equal to `max_tokens`, for servers that have this instead
    #[arg(long, help_heading = "Requests")]
    pub(crate) min_tokens: bool,
    /// More fields of the body, as a JSON object, such as '{"thinking":{"type":"disabled"}}'
    #[arg(long, value_name = "JSON", value_parser = object, help_heading = "Requests")]
    pub(crate) extra_body: Option<Map<String, Value>>,
}

/// Makes bodies.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) model: String,
    pub(crate) args: RequestArgs,
    pub(crate) seed: u64,
}

impl Template {
    pub(crate) fn body(&self, messages: &[Value], max_tokens: usize) -> Value {
        let mut body = json!({
            "model": self.model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": self.args.temperature,
            // Some servers read a signed number.
            "seed": self.seed >> 1,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        if self.args.ignore_eos {
            body["ignore_eos"] = true.into();
        }
        if self.args.min_tokens {
            body["min_tokens"] = max_tokens.into();
        }
        for (name, value) in self.args.extra_body.iter().flatten() {
            body[name] = value.clone();
        }
        body
    }
}

/// A chat message.
pub(crate) fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_body_and_extra_fields_win() {
        let args = RequestArgs {
            temperature: 0.0,
            ignore_eos: true,
            min_tokens: true,
            extra_body: Some(object(r#"{"temperature": 1, "top_k": 5}"#).unwrap()),
        };
        let template = Template { model: "m".into(), args, seed: 8 };
        let body = template.body(&[message("user", "hi")], 12);
        assert_eq!(
            body,
            json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 12, "temperature": 1,
                   "seed": 4, "stream": true, "stream_options": {"include_usage": true}, "ignore_eos": true,
                   "min_tokens": 12, "top_k": 5})
        );
        assert!(object("[1]").unwrap_err().starts_with("not a JSON object"));
    }
}
