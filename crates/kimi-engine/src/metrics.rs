//! Every metric of the engine: names, help texts, buckets, and the handles the engine writes through.
//!
//! Names live here and nowhere else; the table in the README is checked against [`METRICS`].

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use kimi_scheduler::{Load, TierReport};

/// How a metric is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric, as documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name in the exposition.
    pub name: &'static str,
    /// How it is read.
    pub kind: MetricKind,
    /// What it counts or measures.
    pub help: &'static str,
}

impl Metric {
    /// Tells the recorder the help text. To be called once, after the recorder is installed.
    pub fn describe(&self) {
        match self.kind {
            MetricKind::Counter => ::metrics::describe_counter!(self.name, self.help),
            MetricKind::Gauge => ::metrics::describe_gauge!(self.name, self.help),
            MetricKind::Histogram => ::metrics::describe_histogram!(self.name, self.help),
        }
    }
}

/// A table of metrics: a constant for the name of each, and `METRICS` with all of them.
#[macro_export]
macro_rules! metric_table {
    ($($constant:ident: $kind:ident = $name:literal, $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*

        /// Every metric of this crate.
        pub const METRICS: &[$crate::metrics::Metric] = &[$($crate::metrics::Metric {
            name: $name,
            kind: $crate::metrics::MetricKind::$kind,
            help: $help,
        }),*];
    };
}

metric_table! {
    REQUESTS_TOTAL: Counter = "kimi_requests_total", "requests by `outcome`: `stop`, `length`, `cancelled`, `failed`; or refused: `busy`, `stopping`, `too_long`, `empty`, `media`";
    REQUESTS_WAITING: Gauge = "kimi_requests_waiting", "accepted requests that hold no cache blocks (queue depth)";
    REQUESTS_RUNNING: Gauge = "kimi_requests_running", "requests that are being computed";
    QUEUE_SECONDS: Histogram = "kimi_request_queue_time_seconds", "from submission to the request's first step";
    FIRST_TOKEN_SECONDS: Histogram = "kimi_time_to_first_token_seconds", "from submission to the first token";
    INTER_TOKEN_SECONDS: Histogram = "kimi_inter_token_latency_seconds", "from one token of a request to its next";
    REQUEST_SECONDS: Histogram = "kimi_e2e_request_latency_seconds", "from submission to the last token of requests that finished";
    PREFILL_SECONDS: Histogram = "kimi_request_prefill_time_seconds", "from a request's first step to its first token";
    DECODE_SECONDS: Histogram = "kimi_request_decode_time_seconds", "from the first token to the last of requests that finished";
    REQUEST_PROMPT_TOKENS: Histogram = "kimi_request_prompt_tokens", "tokens in the prompts of requests that finished";
    REQUEST_GENERATION_TOKENS: Histogram = "kimi_request_generation_tokens", "tokens in the answers of requests that finished";
    STEP_SECONDS: Histogram = "kimi_step_seconds", "duration of a step of the model";
    STEP_TOKENS: Histogram = "kimi_step_tokens", "tokens computed in a step, all sequences together";
    PROMPT_TOKENS_TOTAL: Counter = "kimi_prompt_tokens_total", "prompt tokens of requests that finished";
    CACHED_TOKENS_TOTAL: Counter = "kimi_cached_tokens_total", "of these, tokens that came from the prefix cache";
    GENERATION_TOKENS_TOTAL: Counter = "kimi_generation_tokens_total", "tokens sampled";
    BLOCKS_USED: Gauge = "kimi_kv_blocks_used", "blocks of the paged cache that belong to a request";
    BLOCKS_FREE: Gauge = "kimi_kv_blocks_free", "blocks of the paged cache that belong to nobody";
    BLOCKS_KEPT: Gauge = "kimi_kv_blocks_kept", "of these, blocks whose content the prefix cache still finds";
    KV_USAGE: Gauge = "kimi_kv_cache_usage_perc", "share of the paged cache that belongs to a request, 0 to 1";
    PREFIX_QUERIES_TOTAL: Counter = "kimi_prefix_cache_queries_total", "prompt tokens looked up in the prefix cache";
    PREFIX_HITS_TOTAL: Counter = "kimi_prefix_cache_hits_total", "of these, tokens that were there";
    PREEMPTIONS_TOTAL: Counter = "kimi_preemptions_total", "times a request lost its blocks to an earlier one";
    DISK_BLOCKS: Gauge = "kimi_kv_disk_blocks", "cache blocks that `--kv-disk` holds";
    DISK_HITS_TOTAL: Counter = "kimi_kv_disk_hits_total", "tokens whose cache entries came back from `--kv-disk`";
    DISK_RESTORED_BYTES_TOTAL: Counter = "kimi_kv_disk_restored_bytes_total", "bytes of these entries";
    DISK_SAVED_BYTES_TOTAL: Counter = "kimi_kv_disk_saved_bytes_total", "bytes of cache entries written to `--kv-disk`";
    DISK_FAILURES_TOTAL: Counter = "kimi_kv_disk_failures_total", "cache blocks that could not be read back from `--kv-disk` and were computed again";
    DRAFTS_TOTAL: Counter = "kimi_spec_decode_num_drafts_total", "times that proposed tokens were computed before they were sampled";
    DRAFT_TOKENS_TOTAL: Counter = "kimi_spec_decode_num_draft_tokens_total", "tokens that were proposed and computed so";
    ACCEPTED_TOKENS_TOTAL: Counter = "kimi_spec_decode_num_accepted_tokens_total", "of these, tokens that were sampled indeed";
    NON_FINITE_LOGITS_TOTAL: Counter = "kimi_non_finite_logits_total", "requests failed because the model computed NaN or infinity";
}

/// Upper bounds for the histograms whose name ends in `_seconds`: 0.5 ms to about 10 minutes.
pub const SECONDS_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0,
    600.0,
];
/// Upper bounds for [`STEP_TOKENS`] and the tokens of a request.
pub const TOKENS_BUCKETS: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];

/// How a request left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stop,
    Length,
    Cancelled,
    Failed,
    Busy,
    Stopping,
    TooLong,
    Empty,
    Media,
}

/// The values of the label `outcome`, in the order of [`Outcome`].
const OUTCOME_LABELS: [&str; 9] =
    ["stop", "length", "cancelled", "failed", "busy", "stopping", "too_long", "empty", "media"];

/// Handles made once, so that a token costs no look-up in the recorder.
pub(crate) struct EngineMetrics {
    /// In the order of [`Outcome`]; made at the start so that each is exposed as 0 before it first happens.
    outcomes: [Counter; 9],
    waiting: Gauge,
    running: Gauge,
    pub(crate) queue_seconds: Histogram,
    pub(crate) first_token_seconds: Histogram,
    pub(crate) inter_token_seconds: Histogram,
    pub(crate) request_seconds: Histogram,
    pub(crate) prefill_seconds: Histogram,
    pub(crate) decode_seconds: Histogram,
    pub(crate) request_prompt_tokens: Histogram,
    pub(crate) request_generation_tokens: Histogram,
    pub(crate) step_seconds: Histogram,
    pub(crate) step_tokens: Histogram,
    pub(crate) prompt_tokens: Counter,
    pub(crate) cached_tokens: Counter,
    pub(crate) generation_tokens: Counter,
    blocks_used: Gauge,
    blocks_free: Gauge,
    blocks_kept: Gauge,
    kv_usage: Gauge,
    prefix_queries: Counter,
    prefix_hits: Counter,
    disk_blocks: Gauge,
    disk_hits: Counter,
    disk_restored_bytes: Counter,
    disk_saved_bytes: Counter,
    disk_failures: Counter,
    preemptions: Counter,
    drafts: Counter,
    draft_tokens: Counter,
    accepted_tokens: Counter,
    pub(crate) non_finite_logits: Counter,
}

impl EngineMetrics {
    /// Handles to whatever recorder is installed now.
    pub(crate) fn new() -> Self {
        Self {
            outcomes: OUTCOME_LABELS.map(|label| counter!(REQUESTS_TOTAL, "outcome" => label)),
            waiting: gauge!(REQUESTS_WAITING),
            running: gauge!(REQUESTS_RUNNING),
            queue_seconds: histogram!(QUEUE_SECONDS),
            first_token_seconds: histogram!(FIRST_TOKEN_SECONDS),
            inter_token_seconds: histogram!(INTER_TOKEN_SECONDS),
            request_seconds: histogram!(REQUEST_SECONDS),
            prefill_seconds: histogram!(PREFILL_SECONDS),
            decode_seconds: histogram!(DECODE_SECONDS),
            request_prompt_tokens: histogram!(REQUEST_PROMPT_TOKENS),
            request_generation_tokens: histogram!(REQUEST_GENERATION_TOKENS),
            step_seconds: histogram!(STEP_SECONDS),
            step_tokens: histogram!(STEP_TOKENS),
            prompt_tokens: counter!(PROMPT_TOKENS_TOTAL),
            cached_tokens: counter!(CACHED_TOKENS_TOTAL),
            generation_tokens: counter!(GENERATION_TOKENS_TOTAL),
            blocks_used: gauge!(BLOCKS_USED),
            blocks_free: gauge!(BLOCKS_FREE),
            blocks_kept: gauge!(BLOCKS_KEPT),
            kv_usage: gauge!(KV_USAGE),
            prefix_queries: counter!(PREFIX_QUERIES_TOTAL),
            prefix_hits: counter!(PREFIX_HITS_TOTAL),
            disk_blocks: gauge!(DISK_BLOCKS),
            disk_hits: counter!(DISK_HITS_TOTAL),
            disk_restored_bytes: counter!(DISK_RESTORED_BYTES_TOTAL),
            disk_saved_bytes: counter!(DISK_SAVED_BYTES_TOTAL),
            disk_failures: counter!(DISK_FAILURES_TOTAL),
            preemptions: counter!(PREEMPTIONS_TOTAL),
            drafts: counter!(DRAFTS_TOTAL),
            draft_tokens: counter!(DRAFT_TOKENS_TOTAL),
            accepted_tokens: counter!(ACCEPTED_TOKENS_TOTAL),
            non_finite_logits: counter!(NON_FINITE_LOGITS_TOTAL),
        }
    }

    /// Counts a request that left this way.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].increment(1);
    }

    /// Shows how busy the scheduler is.
    pub(crate) fn show(&self, load: Load) {
        self.waiting.set(load.waiting as f64);
        self.running.set(load.running as f64);
        self.blocks_used.set(load.blocks_used as f64);
        self.blocks_free.set(load.blocks_free as f64);
        self.blocks_kept.set(load.blocks_kept as f64);
        self.kv_usage.set(load.blocks_used as f64 / (load.blocks_used + load.blocks_free) as f64);
        self.prefix_queries.absolute(load.prefix_queries);
        self.prefix_hits.absolute(load.prefix_hits);
        self.preemptions.absolute(load.preemptions);
        self.disk_blocks.set(load.blocks_stored as f64);
        self.disk_hits.absolute(load.restored_tokens);
        self.disk_failures.absolute(load.failed_restores);
        self.drafts.absolute(load.drafts);
        self.draft_tokens.absolute(load.draft_tokens);
        self.accepted_tokens.absolute(load.accepted_tokens);
    }

    /// Counts what moved between the cache and its second tier.
    pub(crate) fn tier(&self, report: &TierReport) {
        self.disk_restored_bytes.increment(report.restored_bytes);
        self.disk_saved_bytes.increment(report.written_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_every_metric() {
        let rows = METRICS.iter().map(|Metric { name, kind, help }| {
            let kind = format!("{kind:?}").to_lowercase();
            format!("| `{name}` | {kind} | {help} |\n")
        });
        let table = "| name | kind | what it says |\n|---|---|---|\n".to_owned() + &rows.collect::<String>();
        let readme = include_str!("../README.md");
        assert!(readme.contains(&table), "the table in README.md must read:\n\n{table}");
    }
}
