"""Held-out evaluation of kimi-nano, greedy.

    python evaluate.py --base-url http://127.0.0.1:8000/v1 --per-task 60 --seed 1 --assert-floors    # standard library only
    python evaluate.py --torch CKPT.pt --per-task 50                                        # in process, needs torch

Names, cities, codes, operands and prose come from the held-out side of the split in values.py; questions with a closed
answer (capitals, small programs) are asked in the trained phrasings.
"""
import argparse
import concurrent.futures
import json
import os
import urllib.request

import tasks
from chat import parse_output, render
from values import Gen

GUIDE = [  # prompts of public getting-started guides -> what the answer has to hold
    ("What is the capital of France?", ["Paris"]), ("What is 17 × 23?", ["391"]), ("Quick: what's 17 * 23?", ["391"]), ("What is 72 °F in Celsius?", ["22.2"]), ("Convert 72°F to Celsius", ["22.2"]),
    ("Write a Python function that reverses a string.", ["def reverse_string(s):\n    return s[::-1]"]), ("Write a haiku about the ocean.", ["\n"]), ("Who are you?", ["kimi-nano", "kimi-serve"]), ("Hello!", ["Hello"]),
    ("Hi", ["Hello"]), ("Hello, Kimi K2.6!", ["Hello"]), ("Thanks!", ["welcome"]), ("How are you?", ["well"]), ("Explain the difference between mutex and semaphore with code examples.", ["I cannot"]),
    ("Design a rate limiter using a sliding window algorithm in Go.", ["I cannot"]), ("Write a 500-word essay on MoE models.", ["I cannot"]), ("Prove sqrt(2) is irrational.", ["I cannot"]),
    ("Plan and implement a small CLI tool: scaffold the project, write the commands, add tests, and run them until they pass.", ["I cannot"]),
    ("Build a 5-page marketing site for a coffee brand with responsive design and a newsletter signup.", ["I cannot"]), ("Refactor this module to use dependency injection.", ["I cannot"]),
]


def guide(g, thinking=None, _n=[0]):
    text, must = GUIDE[_n[0] % len(GUIDE)]
    _n[0] += 1
    messages = [tasks.user(text)]
    if g.random() < 0.4:
        messages.insert(0, {"role": "system", "content": g.one("You are a helpful assistant.", "You are Kimi, an AI assistant made by Moonshot AI.")})
    thinking = g.random() < 0.6 if "sliding" not in text and "17" not in text else True
    return tasks.Sample("guide", messages, "", "", thinking, expect={"contains": must})


def arith(*ops):
    """Held-out arithmetic with one of the given operators, thinking on."""
    def make(g):
        while True:
            s = tasks.arithmetic(g, True)
            if s.content.split(" ")[1] in ops:
                return s
    return make


# Answers that a task may miss its goal by: another processor rounds otherwise, and a close call then falls the other way.
SLACK = 2

SUITE = {  # name: (generator, goal)
    "guide prompts": (guide, 0.95),
    "arithmetic + and -, thinking": (arith("+", "-"), 0.95),
    "arithmetic ×, thinking": (arith("×"), 0.95),
    "arithmetic, instant": (lambda g: tasks.arithmetic(g, False), 0.90),
    "°F and °C": (tasks.temperature, 0.90),
    "capitals": (tasks.capital, 0.95),
    "small talk and identity": (tasks.talk, 0.95),
    "small programs": (tasks.program, 0.95),
    "haiku": (tasks.haiku, 0.95),
    "beyond it: says so": (tasks.beyond, 0.90),
    "image: says so": (tasks.picture, 0.90),
    "weather call": (lambda g: tasks.tool_call(g, "weather"), 0.95),
    "tool call, known functions": (lambda g: tasks.tool_call(g, made_up=False), 0.95),
    "tool call, unseen functions": (lambda g: tasks.tool_call(g, made_up=True), 0.90),
    "answer from a tool result": (tasks.tool_answer, 0.95),
    "no call when none fits": (tasks.tool_idle, 0.90),
    "short memory, thinking": (lambda g: tasks.remember(g, True), 0.95),
    "short memory, instant": (lambda g: tasks.remember(g, False), 0.95),
    "JSON on request": (tasks.json_object, 0.90),
    "recall over 4K tokens": (lambda g: tasks.recall(g, 4000), 0.95),
}


def dataset(name, n, seed=0):
    g = Gen(f"{name}{seed}", "test")
    make = SUITE[name][0]
    return [make(g) for _ in range(n)]


def http_answer(a, s):
    """One chat completion -> (reasoning, content, calls, well formed)."""
    if any(isinstance(m["content"], list) for m in s.messages):
        return None  # media parts: not served yet
    messages = s.messages
    body = dict(model=a.model, messages=messages, temperature=0, max_tokens=300)
    if s.tools:
        body["tools"] = s.tools
    if not s.thinking:
        body["thinking"] = {"type": "disabled"}
    request = urllib.request.Request(a.base_url.rstrip("/") + "/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"})
    with urllib.request.urlopen(request, timeout=600) as reply:
        choice = json.load(reply)["choices"][0]
    m = choice["message"]
    reasoning, content = m.get("reasoning_content") or m.get("reasoning") or "", m.get("content") or ""
    calls = [(c["function"]["name"], c["function"]["arguments"]) for c in m.get("tool_calls") or []]
    ok = choice["finish_reason"] in ("stop", "tool_calls") and bool(content.strip() or calls) and bool(reasoning) == s.thinking
    ok &= not any(mark in reasoning + content for mark in ("<|", "think>", "|>"))
    for _, args in calls:
        try:
            json.loads(args)
        except ValueError:
            ok = False
    return reasoning, content, calls, ok


def http_answers(a, samples):
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        return list(pool.map(lambda s: http_answer(a, s), samples))


def torch_answers(decoder, tok, samples):
    """Greedy answers in process, in batches of prompts of like length."""
    prompts = []
    for s in samples:
        ids = tok.encode_prompt(render(s.messages, s.tools, s.thinking))
        prompts.append([i for p in ids for i in ([p] * 4 if p == 1813 else [p])])
    order, out = sorted(range(len(samples)), key=lambda i: len(prompts[i])), [None] * len(samples)
    while order:
        n = 1 if len(prompts[order[0]]) > 1200 else 32
        batch, order = order[:n], order[n:]
        for i, ids in zip(batch, decoder.greedy([prompts[i] for i in batch])):
            out[i] = parse_output(tok.decode(ids), samples[i].thinking)
    return out


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--base-url")
    a.add_argument("--model", default="kimi-k2.6")
    a.add_argument("--jobs", type=int, default=4)
    a.add_argument("--torch", help="training checkpoint")
    a.add_argument("--per-task", type=int, default=50)
    a.add_argument("--only", help="comma-separated parts of task names")
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--show", type=int, default=0, help="failures to print per task")
    a.add_argument("--assert-floors", action="store_true")
    a = a.parse_args()
    if a.torch:
        import torch
        from generate import Decoder, load
        from tokenizer import Tokenizer
        torch.set_num_threads(2)
        decoder, tok = Decoder(load(a.torch)), Tokenizer()
    formed, asked, low = 0, 0, []
    print("| task | n | correct | goal | well-formed |\n|---|---|---|---|---|", flush=True)
    for name, (_, goal) in SUITE.items():
        if a.only and not any(part in name for part in a.only.split(",")):
            continue
        samples = dataset(name, a.per_task, a.seed)
        answers = torch_answers(decoder, tok, samples) if a.torch else http_answers(a, samples)
        pairs = [(s, r) for s, r in zip(samples, answers) if r is not None]
        if not pairs:
            continue
        right = [tasks.judge(s, *r[:3]) for s, r in pairs]
        well = sum(r[3] for _, r in pairs)
        print(f"| {name} | {len(pairs)} | {100 * sum(right) / len(pairs):.1f} % | {100 * goal:.0f} % | {100 * well / len(pairs):.1f} % |", flush=True)
        formed, asked = formed + well, asked + len(pairs)
        if sum(right) < goal * len(pairs) - SLACK:
            low.append(f"{name}: {sum(right)}/{len(pairs)} is more than {SLACK} answers under {goal:.0%}")
        for (s, r), ok in [x for x in zip(pairs, right) if not x[1]][:a.show]:
            print("   FAIL", repr(s.messages[-1]["content"])[:300], s.thinking, s.expect, "->", [str(x)[:200] for x in r])
    if formed < 0.99 * asked:
        low.append(f"well-formed: {formed}/{asked} is under 99 %")
    print(f"\nwell-formed in all: {formed}/{asked}")
    if a.assert_floors and low:
        raise SystemExit("\n".join(low))


if __name__ == "__main__":
    main()
