"""Kimi K2.6 chat format in plain Python (standard library only): TypeScript tool block, prompt text.

Messages are OpenAI-style dicts. The renderer is checked against the Jinja template by check_template.py.
"""
import json


# ---- tool declarations as TypeScript (simple JSON schemas; anything else falls back to compact JSON) ----
def deep_sort(value):
    if isinstance(value, dict):
        return {k: deep_sort(value[k]) for k in sorted(value)}
    return [deep_sort(v) for v in value] if isinstance(value, list) else value


def _literal(value):
    return repr(value) if isinstance(value, (bool, int, float)) else json.dumps(value, ensure_ascii=False)


def _type(schema, indent):
    if "enum" in schema:
        return " | ".join(f'"{v}"' if isinstance(v, str) else str(v) for v in schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        return _object(schema, indent)
    if kind == "array":
        items = schema.get("items")
        if not items:
            return "Array<any>"
        comments = _comments(items, indent + 1)
        inner = _type(items, indent + 1)
        if comments:
            pad = "  " * (indent + 1)
            return "Array<\n" + "".join(c + "\n" for c in comments) + pad + inner + "\n" + "  " * indent + ">"
        return f"Array<{inner}>"
    if kind == "integer":
        return "number"
    if isinstance(kind, str):
        return kind
    if not schema:
        return "any"
    raise ValueError("unsupported schema")


def _comments(schema, indent):
    pad, lines = "  " * indent, []
    for line in (schema.get("description") or "").split("\n") if schema.get("description") else []:
        lines.append(f"{pad}// {line}" if line else "")
    keys = {"string": ("maxLength", "minLength", "pattern"), "integer": ("maximum", "minimum"),
            "number": ("maximum", "minimum"), "array": ("maxItems", "minItems")}.get(schema.get("type"), ())
    limits = ", ".join(f"{k}: {schema[k]}" for k in sorted(keys) if k in schema)
    if limits:
        lines.append(f"{pad}// {limits}")
    if schema.get("default") is not None:
        lines.append(f"{pad}// Default: {_literal(schema['default'])}")
    return lines


def _object(schema, indent):
    props = schema.get("properties") or {}
    required = set(schema.get("required") or [])
    names = sorted(n for n in props if n in required) + sorted(n for n in props if n not in required)
    pad = "  " * (indent + 1)
    fields = []
    for n in names:
        lines = _comments(props[n], indent + 1)
        lines.append(f"{pad}{n}{'' if n in required else '?'}: {_type(props[n], indent + 1)}")
        fields.append("\n".join(lines))
    extra = schema.get("additionalProperties")
    if extra is not None:
        shown = "any" if extra is True else "never" if extra is False else _type(extra, indent + 1)
        fields.append(f"{pad}[k: string]: {shown}")
    return "{\n" + ",\n".join(fields) + "\n" + "  " * indent + "}" if fields else "{}"


def tools_typescript(tools):
    """The `tools_ts_str` of the chat template."""
    blocks = []
    for tool in deep_sort(tools):
        fn = tool.get("function")
        if tool.get("type") != "function" or not fn:
            continue
        lines = [f"// {d}" if d else "" for d in (fn.get("description") or "").split("\n")] if fn.get("description") else []
        lines.append(f"type {fn['name']} = (_: {_object(fn.get('parameters') or {}, 0)}) => any;")
        blocks.append("\n".join(lines))
    return "# Tools\n\n## functions\nnamespace functions {\n" + "\n".join(blocks) + "\n}\n" if blocks else ""


# ---- conversation -> prompt text ----
def content_text(content):
    if content is None or isinstance(content, str):
        return content or ""
    out = []
    for part in content:
        if part["type"] in ("image", "image_url"):
            out.append("<|media_begin|>image<|media_content|><|media_pad|><|media_end|>\n")
        elif part["type"] == "video_chunk":      # what a server puts in place of the video placeholder
            out.append("00:00:00.000<|media_begin|>video<|media_content|><|media_pad|><|media_end|>\n")
        elif part["type"] in ("video", "video_url"):
            out.append("<|kimi_k25_video_placeholder|>\n")
        else:
            out.append(part["text"])
    return "".join(out)


def calls_text(calls):
    out = ["<|tool_calls_section_begin|>"]
    for call in calls:
        args = call["function"]["arguments"]
        args = args if isinstance(args, str) else json.dumps(args, ensure_ascii=False)
        out.append(f"<|tool_call_begin|>{call['id']}<|tool_call_argument_begin|>{args}<|tool_call_end|>")
    return "".join(out) + "<|tool_calls_section_end|>"


def render_parts(messages, tools=None, thinking=True):
    """-> list of (text, assistant_turn) with the generation prompt last.

    assistant_turn marks the part an assistant wrote after its `<think>`/`<think></think>` opening.
    """
    parts = []
    if tools:
        parts.append(("<|im_system|>tool_declare<|im_middle|>" + tools_typescript(tools) + "<|im_end|>", False))
    last = max((i for i, m in enumerate(messages) if m["role"] == "assistant" and not m.get("tool_calls")), default=-1)
    for i, m in enumerate(messages):
        name = m.get("name") or m["role"]
        mark = {"user": "<|im_user|>", "assistant": "<|im_assistant|>"}.get(m["role"], "<|im_system|>")
        head = f"{mark}{name}<|im_middle|>"
        body = content_text(m.get("content"))
        if m["role"] == "assistant":
            if m.get("tool_calls"):
                body += calls_text(m["tool_calls"])
            if i <= last or not thinking:
                parts += [(head + "<think></think>", False), (body + "<|im_end|>", True)]
            else:
                reasoning = m.get("reasoning", m.get("reasoning_content", ""))
                parts += [(head + "<think>", False), (reasoning + "</think>" + body + "<|im_end|>", True)]
        else:
            if m["role"] == "tool":
                body = f"## Return of {m['tool_call_id']}\n{body}"
            parts.append((head + body + "<|im_end|>", False))
    parts.append(("<|im_assistant|>assistant<|im_middle|>" + ("<think>" if thinking else "<think></think>"), False))
    return parts


def render(messages, tools=None, thinking=True):
    return "".join(text for text, _ in render_parts(messages, tools, thinking))


def target_text(sample):
    """What the model has to write for a Sample, `<|im_end|>` included."""
    out = (sample.reasoning + "</think>") if sample.thinking else ""
    out += sample.content
    if sample.calls:
        out += calls_text(sample.calls)
    return out + "<|im_end|>"


def parse_output(text, thinking):
    """Model text -> (reasoning, content, calls, well_formed). Calls are (name, arguments text)."""
    ok = text.endswith("<|im_end|>")
    text = text.removesuffix("<|im_end|>")
    reasoning = ""
    if thinking:
        if "</think>" not in text:
            return text, "", [], False
        reasoning, text = text.split("</think>", 1)
    calls = []
    if "<|tool_calls_section_begin|>" in text:
        text, section = text.split("<|tool_calls_section_begin|>", 1)
        ok &= section.endswith("<|tool_calls_section_end|>")
        for call in section.removesuffix("<|tool_calls_section_end|>").split("<|tool_call_begin|>")[1:]:
            ident, _, args = call.partition("<|tool_call_argument_begin|>")
            ok &= args.endswith("<|tool_call_end|>") and ident.startswith("functions.")
            args = args.removesuffix("<|tool_call_end|>")
            try:
                json.loads(args)
            except ValueError:
                ok = False
            calls.append((ident.removeprefix("functions.").rsplit(":", 1)[0], args))
    ok &= bool(text.strip() or calls) and not any(mark in reasoning + text for mark in ("<|", "think>", "|>"))
    return reasoning, text, calls, ok
