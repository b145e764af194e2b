#!/usr/bin/env python3
"""Writes the inputs the fuzzers begin with into corpus/: one good request of each kind, outputs and formats of every form."""

import base64
import hashlib
import json
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent
MEDIA = HERE.parents[2] / "crates/kimi-chat/tests/data/media"
SCHEMAS = HERE.parents[2] / "crates/kimi-guide/tests/schemas.json"

CALL = {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": '{"a":"b"}'}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "enum": ["b"]}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "strict": True, "parameters": SCHEMA}}
PIXEL = base64.b64encode((MEDIA / "one_pixel.png").read_bytes()).decode()
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
MESSAGES = [
    {"role": "system", "content": "s"},
    {"role": "user", "name": "u", "content": [{"type": "text", "text": "t"}]},
    {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "functions.f:0", "content": "x"},
]
CHAT = {
    "model": "k", "messages": MESSAGES, "tools": [TOOL], "tool_choice": "auto", "max_tokens": 5, "temperature": 0.5,
    "top_p": 0.9, "n": 2, "stop": ["a"], "seed": 1, "stream": True, "stream_options": {"include_usage": True},
    "presence_penalty": 0.1, "frequency_penalty": 0.1, "logprobs": True, "top_logprobs": 2, "logit_bias": {"5": 1.0},
    "thinking": {"type": "enabled", "keep": "all"}, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 1,
    "stop_token_ids": [1], "cache_salt": "s", "priority": 1, "return_token_ids": True, "thinking_budget": 3,
}  # fmt: skip
BLOCKS = [
    {"role": "user", "content": [{"type": "text", "text": "t"}]},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "h", "signature": ""},
                                      {"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x", "is_error": True}]},
]  # fmt: skip
MESSAGE = {
    "model": "k", "max_tokens": 9, "system": "s", "messages": BLOCKS, "tools": [{"name": "f", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "f"}, "thinking": {"type": "enabled", "budget_tokens": 3}, "stop_sequences": ["a"],
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
}  # fmt: skip
ITEMS = [
    {"role": "user", "content": [{"type": "input_text", "text": "t"}]},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "h"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "x"},
]
RESPONSE = {
    "model": "k", "instructions": "i", "input": ITEMS, "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}],
    "tool_choice": {"type": "function", "name": "f"}, "reasoning": {"effort": "high", "summary": "auto"}, "stream": True,
    "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}, "max_output_tokens": 9, "metadata": {"a": "b"},
    "include": ["message.output_text.logprobs"], "top_logprobs": 1,
}  # fmt: skip
TEXT = {"model": "k", "prompt": ["p", [1, 2]], "max_tokens": 3, "echo": True, "logprobs": 1, "stream": True, "stop": "x"}

REQUESTS = [
    (0, CHAT),
    (0, CHAT | {"stream": False, "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}}),
    (0, CHAT | {"messages": MESSAGES[:2] + [{"role": "assistant", "content": "p", "partial": True}], "tools": []}),
    (0, {"model": "k", "messages": MESSAGES[:2], "structured_outputs": {"regex": "[a-z]{1,9}"}, "enable_thinking": False}),
    (0, {"model": "k", "messages": MESSAGES[:2], "structured_outputs": {"choice": ["a", "b"]}, "reasoning_effort": "none"}),
    (0, {"model": "k", "messages": MESSAGES[:2], "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}),
    (0, {"model": "k", "messages": [{"role": "user", "content": [IMAGE, {"type": "video_url", "video_url": "ms://file-0"}]}]}),
    (1, TEXT), (1, TEXT | {"stream": False, "prompt": "p"}),
    (2, MESSAGE), (2, MESSAGE | {"stream": True, "tool_choice": {"type": "auto"}}), (3, MESSAGE),
    (4, RESPONSE), (4, {"model": "k", "input": "t"}),
    (5, CHAT), (6, {"model": "k", "prompt": "p", "return_token_strs": True}), (6, {"messages": MESSAGES}),
    (7, {"tokens": [1, 2, 300]}),
]  # fmt: skip
FORMATS = [
    (5, "[a-z]+(foo|bar){2,3}"), (5, r"\d{4}-\d\d-\d\d"), (6, 'start: "a" b*\nb: /[0-9]+/ | "(" start ")"'),
    (7, "yes\nno\nmaybe"), (4, json.dumps({"type": "array", "items": {"type": "integer"}, "uniqueItems": True})),
]  # fmt: skip


def write(target: str, content: bytes) -> None:
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(content).hexdigest()).write_bytes(content)


for route, body in REQUESTS:
    write("requests", bytes([route]) + json.dumps(body, separators=(",", ":")).encode())
for kind, text in FORMATS:
    write("formats", bytes([kind, 15]) + text.encode())
for schema in json.loads(SCHEMAS.read_text()):
    write("formats", bytes([0, 15]) + json.dumps(schema["schema"], separators=(",", ":")).encode())
for path in sorted(MEDIA.iterdir()):
    if path.suffix not in (".json", ".patches"):
        write("media", bytes([path.suffix in (".mp4", ".mov", ".gif")]) + path.read_bytes())
for choice in range(32):
    # Even numbers are special tokens in their order, odd ones text.
    write("output_parser", bytes([choice]) + struct.pack("<24H", *(2 * i if i % 3 else 2 * (i * 37 % 300) + 1 for i in range(24))))
