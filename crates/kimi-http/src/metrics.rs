//! What the HTTP layer counts. The engine counts tokens, queues and times of its own.

kimi_engine::metric_table! {
    HTTP_REQUESTS_TOTAL: Counter = "kimi_http_requests_total", "Answers, by `route` and `status`.";
    HTTP_RESPONSE_SECONDS: Histogram = "kimi_http_response_seconds", "Time until the head of the answer was ready, by `route`; for whole answers that is all of it.";
    TOOL_PARSE_ERRORS_TOTAL: Counter = "kimi_tool_parse_errors_total", "Malformed tool calls in answers; their text became content.";
    EMPTY_ANSWERS_TOTAL: Counter = "kimi_empty_answers_total", "Answers that ended by themselves with neither content nor a tool call.";
    IGNORED_PARAMS_TOTAL: Counter = "kimi_ignored_params_total", "Known request keys that had no effect, by `name`.";
    UNKNOWN_PARAMS_TOTAL: Counter = "kimi_unknown_params_total", "Request keys this server does not know, ignored.";
    CONNECTIONS_REFUSED_TOTAL: Counter = "kimi_connections_refused_total", "Connections that were refused because too many were open.";
}
