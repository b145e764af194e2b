//! What the HTTP layer counts. The engine counts tokens, queues and times of its own.

use kimi_engine::metrics::{Metric, MetricKind};

/// Answers, by route and status.
pub const HTTP_REQUESTS_TOTAL: &str = "kimi_http_requests_total";
/// Time until the head of the answer was ready; for whole answers that is all of it.
pub const HTTP_RESPONSE_SECONDS: &str = "kimi_http_response_seconds";
/// Answers in which the model wrote a tool call that could not be read; its text became content.
pub const TOOL_PARSE_ERRORS_TOTAL: &str = "kimi_tool_parse_errors_total";
/// Answers that ended by themselves with neither content nor a tool call.
pub const EMPTY_ANSWERS_TOTAL: &str = "kimi_empty_answers_total";
/// Known request keys that had no effect, by name.
pub const IGNORED_PARAMS_TOTAL: &str = "kimi_ignored_params_total";
/// Request keys this server does not know.
pub const UNKNOWN_PARAMS_TOTAL: &str = "kimi_unknown_params_total";

/// Connections that were refused because too many were open.
pub const CONNECTIONS_REFUSED_TOTAL: &str = "kimi_connections_refused_total";

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[
    Metric {
        name: HTTP_REQUESTS_TOTAL,
        kind: MetricKind::Counter,
        help: "Answers, by `route` and `status`.",
    },
    Metric {
        name: HTTP_RESPONSE_SECONDS,
        kind: MetricKind::Histogram,
        help: "Time until the head of the answer was ready, by `route`; for whole answers that is all of it.",
    },
    Metric {
        name: TOOL_PARSE_ERRORS_TOTAL,
        kind: MetricKind::Counter,
        help: "Malformed tool calls in answers; their text became content.",
    },
    Metric {
        name: EMPTY_ANSWERS_TOTAL,
        kind: MetricKind::Counter,
        help: "Answers that ended by themselves with neither content nor a tool call.",
    },
    Metric {
        name: IGNORED_PARAMS_TOTAL,
        kind: MetricKind::Counter,
        help: "Known request keys that had no effect, by `name`.",
    },
    Metric {
        name: UNKNOWN_PARAMS_TOTAL,
        kind: MetricKind::Counter,
        help: "Request keys this server does not know, ignored.",
    },
    Metric {
        name: CONNECTIONS_REFUSED_TOTAL,
        kind: MetricKind::Counter,
        help: "Connections that were refused because too many were open.",
    },
];

/// Tells the installed recorder the help texts.
pub fn describe() {
    for metric in METRICS {
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            MetricKind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}
