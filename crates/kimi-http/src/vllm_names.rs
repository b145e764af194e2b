//! The metrics under the names vLLM gives them, so that dashboards and load generators made for it work here.

use std::fmt::Write as _;

use kimi_engine::metrics as engine;

/// Our names, and vLLM's for the same.
const NAMES: &[(&str, &str)] = &[
    (engine::REQUESTS_RUNNING, "vllm:num_requests_running"),
    (engine::REQUESTS_WAITING, "vllm:num_requests_waiting"),
    (engine::KV_USAGE, "vllm:kv_cache_usage_perc"),
    (engine::PREFIX_QUERIES_TOTAL, "vllm:prefix_cache_queries_total"),
    (engine::PREFIX_HITS_TOTAL, "vllm:prefix_cache_hits_total"),
    (engine::PROMPT_TOKENS_TOTAL, "vllm:prompt_tokens_total"),
    (engine::GENERATION_TOKENS_TOTAL, "vllm:generation_tokens_total"),
    (engine::REQUESTS_TOTAL, "vllm:request_success_total"),
    (engine::PREEMPTIONS_TOTAL, "vllm:num_preemptions_total"),
    (engine::DRAFTS_TOTAL, "vllm:spec_decode_num_drafts_total"),
    (engine::DRAFT_TOKENS_TOTAL, "vllm:spec_decode_num_draft_tokens_total"),
    (engine::ACCEPTED_TOKENS_TOTAL, "vllm:spec_decode_num_accepted_tokens_total"),
    (engine::FIRST_TOKEN_SECONDS, "vllm:time_to_first_token_seconds"),
    (engine::INTER_TOKEN_SECONDS, "vllm:inter_token_latency_seconds"),
    (engine::REQUEST_SECONDS, "vllm:e2e_request_latency_seconds"),
    (engine::QUEUE_SECONDS, "vllm:request_queue_time_seconds"),
    (engine::PREFILL_SECONDS, "vllm:request_prefill_time_seconds"),
    (engine::DECODE_SECONDS, "vllm:request_decode_time_seconds"),
    (engine::REQUEST_PROMPT_TOKENS, "vllm:request_prompt_tokens"),
    (engine::REQUEST_GENERATION_TOKENS, "vllm:request_generation_tokens"),
];

/// The lines of `text`, in Prometheus' format, that have a name in vLLM, under that name and with its label for the model.
pub(crate) fn translate(text: &str, model: &str) -> String {
    let model = model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut out = String::new();
    for line in text.lines() {
        let translated = match line.strip_prefix("# ") {
            Some(comment) => translate_comment(comment),
            None => translate_sample(line, &model),
        };
        if let Some(line) = translated {
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

/// `HELP name text` or `TYPE name kind`.
fn translate_comment(comment: &str) -> Option<String> {
    let (kind, rest) = comment.split_once(' ')?;
    let (name, rest) = rest.split_once(' ')?;
    Some(format!("# {kind} {} {rest}", theirs(name)?))
}

/// `name value` or `name{labels} value`.
fn translate_sample(line: &str, model: &str) -> Option<String> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let suffix =
        ["_bucket", "_sum", "_count"].into_iter().find(|suffix| name.ends_with(suffix)).unwrap_or("");
    let theirs = theirs(name.strip_suffix(suffix)?)?;
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.split_once('}')?,
        None => ("", rest),
    };
    // Theirs counts the requests that ended as asked, by why.
    let labels = match labels.strip_prefix("outcome=") {
        Some(reason @ ("\"stop\"" | "\"length\"")) => format!("finished_reason={reason}"),
        Some(_) => return None,
        None => labels.to_owned(),
    };
    let comma = if labels.is_empty() { "" } else { "," };
    Some(format!("{theirs}{suffix}{{model_name=\"{model}\"{comma}{labels}}}{value}"))
}

fn theirs(name: &str) -> Option<&'static str> {
    NAMES.iter().find(|(ours, _)| *ours == name).map(|(_, theirs)| *theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_keep_their_values_and_labels() {
        let ours = "# HELP kimi_requests_total requests by `outcome`\n# TYPE kimi_requests_total counter\n\
            kimi_requests_total{outcome=\"stop\"} 3\nkimi_requests_total{outcome=\"length\"} 1\n\
            kimi_requests_total{outcome=\"cancelled\"} 2\n\nkimi_requests_running 2\nkimi_step_seconds_sum 1\n\
            kimi_e2e_request_latency_seconds_bucket{le=\"0.1\"} 4\nkimi_e2e_request_latency_seconds_sum 0.5\n\
            kimi_e2e_request_latency_seconds_count 4\n";
        let theirs = "# HELP vllm:request_success_total requests by `outcome`\n\
            # TYPE vllm:request_success_total counter\n\
            vllm:request_success_total{model_name=\"a\\\"b\",finished_reason=\"stop\"} 3\n\
            vllm:request_success_total{model_name=\"a\\\"b\",finished_reason=\"length\"} 1\n\
            vllm:num_requests_running{model_name=\"a\\\"b\"} 2\n\
            vllm:e2e_request_latency_seconds_bucket{model_name=\"a\\\"b\",le=\"0.1\"} 4\n\
            vllm:e2e_request_latency_seconds_sum{model_name=\"a\\\"b\"} 0.5\n\
            vllm:e2e_request_latency_seconds_count{model_name=\"a\\\"b\"} 4\n";
        assert_eq!(translate(ours, "a\"b"), theirs);
    }

    #[test]
    fn every_name_is_that_of_a_metric() {
        for (ours, _) in NAMES {
            assert!(engine::METRICS.iter().any(|metric| metric.name == *ours), "{ours}");
        }
    }
}
