"""Our chat template and chat.py against another template (the hub's) on generated conversations.

    python check_template.py PATH/chat_template.jinja
"""
import json
import pathlib
import sys

from jinja2 import Environment

import tasks
from chat import render, tools_typescript
from tokenizer import MODEL_DIR
from values import Gen


def load(path):
    env = Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.filters["tojson"] = lambda v, separators=None: json.dumps(v, ensure_ascii=False, separators=separators)
    return env.from_string(pathlib.Path(path).read_text())


ours, theirs, g, n = load(MODEL_DIR / "chat_template.jinja"), load(sys.argv[1]), Gen(7), 0
for _ in range(3000):
    s = tasks.sample(g)
    msgs = list(s.messages)
    if g.random() < 0.3:
        msgs.append({"role": "assistant", "content": g.one("fine", None, "", [{"type": "text", "text": "a"}, {"type": "image"}]), "reasoning": "because", "tool_calls": g.one(None, [], [
            {"id": "functions.f:0", "function": {"name": "f", "arguments": g.one('{"a":1}', {"a": [1, "ü<b>"]}, {})}}])})
    if g.random() < 0.2:
        msgs.append({"role": "tool", "tool_call_id": "functions.f:0", "content": g.one("ok", [{"type": "text", "text": "x"}, {"type": "video"}, {"type": "text", "text": "\n y "}])})
    if g.random() < 0.2:
        msgs.insert(0, {"role": g.one("user", "system", "developer"), "name": g.one("bob", "", None), "content": g.one(" hi\n", None, "a {{ b }} \n\n")})
    for thinking in (True, False, None):
        for keep in (True, False, None):
            for generate in (True, False):
                args = dict(messages=msgs, tools=s.tools, tools_ts_str=g.one(None, tools_typescript(s.tools)) if s.tools else None, add_generation_prompt=generate)
                args |= {} if thinking is None else {"thinking": thinking}
                args |= {} if keep is None else {"preserve_thinking": keep}
                a, b = ours.render(**args), theirs.render(**args)
                assert a == b, (a, b)
                n += 1
    if not any(p.get("type") == "video_chunk" for m in s.messages if isinstance(m["content"], list) for p in m["content"]):
        assert render(s.messages, s.tools, s.thinking) == ours.render(messages=s.messages, tools=s.tools, tools_ts_str=s.tools and tools_typescript(s.tools),
                                                                       thinking=s.thinking, add_generation_prompt=True)
print(n, "renderings equal")
