#!/usr/bin/env python3
"""Ten thousand requests of mixed shape, a fifth of whose clients hang up, against a queue that overflows.

    scripts/soak.py [--binary target/release/kimi-serve] [--requests 10000] [--clients 128] [--kv-memory 5M] [--seed 1]

Starts the binary with kimi-nano and a cache too small for everybody, so that sequences are preempted. Exit code 1 when a
request was neither answered nor refused in the documented form, when a block or a sequence is still held afterwards, or
when memory grew in the second half by more than a tenth. Prints inter-token times beside those of one stream alone. Needs
Linux and Python 3.10 or newer.
"""

import argparse
import asyncio
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import time
from collections import Counter

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORDS = "river stone light paper garden window letter music silver morning harbour engine ticket forest copper".split()
HANG_UP = 0.2


def start(binary: str, kv_memory: str) -> tuple[subprocess.Popen, int]:
    command = [binary, "serve", "--port", "0", "--queue", "64", "--kv-memory", kv_memory]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "RUST_LOG": "warn"})
    line = server.stdout.readline()
    if not line.startswith("ready: "):
        sys.exit(f"the server did not start: {line}")
    return server, int(line.rsplit(":", 1)[1].split("/")[0])


def resident_mib(pid: int) -> float:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def request(rng: random.Random, shared: str) -> dict:
    """Short and long prompts, known and new ones, whole and streamed, thinking or not, with a format or a tool."""
    words = " ".join(rng.choice(WORDS) for _ in range(min(350, int(rng.lognormvariate(3.2, 1.3)) + 1)))
    text = f"{shared} {words}" if rng.random() < 0.3 else words
    body = {"model": "kimi-k2.6", "messages": [{"role": "user", "content": text}], "stream": rng.random() < 0.7,
            "max_tokens": min(200, int(rng.lognormvariate(3.0, 0.8)) + 1), "temperature": rng.choice([0, 1])}
    if rng.random() < 0.5:
        body["thinking"] = {"type": "disabled"}
    if rng.random() < 0.1:
        body["response_format"] = {"type": "json_object"}
    if rng.random() < 0.1:
        parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        body["tools"] = [{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]
    if rng.random() < 0.05:
        body["n"] = 2
    return body


async def send(port: int, body: dict) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
    writer.write(head + b"content-length: %d\r\n\r\n" % len(data) + data)
    return reader, writer


async def ask(port: int, body: dict, patience: float | None, gaps: list[float]) -> str:
    """What became of one request: `answered`, `refused`, `left`, or what was wrong."""
    reader, writer = await send(port, body)
    try:
        return await asyncio.wait_for(read(reader, body["stream"], gaps), patience or 600)
    except TimeoutError:
        return "left" if patience else "no end after 600 s"
    finally:
        writer.transport.abort()


async def read(reader: asyncio.StreamReader, streamed: bool, gaps: list[float]) -> str:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status = int(head.split(" ", 2)[1])
    if status == 429:
        error = json.loads((await reader.read()).decode().split("\r\n")[-1] or "{}").get("error", {})
        told = "retry-after:" in head.lower() and error.get("type") == "engine_overloaded_error"
        return "refused" if told else f"429 in another form: {error}"
    if status != 200:
        return f"status {status}"
    times, text = [], b""
    while piece := await reader.read(65536):
        if streamed and b"data: " in piece:
            times.append(time.monotonic())
        text += piece
    # The first event only names the role; between it and the first token the request waits for its turn.
    gaps += [later - earlier for earlier, later in zip(times[1:], times[2:])]
    if streamed:
        return "answered" if b"data: [DONE]" in text else "a stream without its end"
    return "answered" if b'"finish_reason"' in text else "an answer without its end"


async def metrics(port: int) -> dict[str, float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return {name: float(value) for name, value in re.findall(r"^(kimi_\w+) ([\d.e+]+)$", text, re.M)}


def p99(gaps: list[float]) -> float:
    return sorted(gaps)[int(0.99 * (len(gaps) - 1))] * 1000


async def soak(options: argparse.Namespace, server: subprocess.Popen, port: int) -> list[str]:
    rng = random.Random(options.seed)
    shared = " ".join(rng.choice(WORDS) for _ in range(250))
    alone: list[float] = []
    for _ in range(3):
        body = {"model": "kimi-k2.6", "messages": [{"role": "user", "content": "Hello"}], "stream": True,
                "max_tokens": 300, "min_tokens": 300}
        await ask(port, body, None, alone)

    outcomes, gaps, memory, asked = Counter(), [], [], 0

    async def client() -> None:
        nonlocal asked
        while asked < options.requests:
            asked += 1
            if asked % (options.requests // 20) == 0:
                memory.append(resident_mib(server.pid))
                print(f"{asked} asked, {dict(outcomes)}, {memory[-1]:.0f} MiB", file=sys.stderr, flush=True)
            body = request(rng, shared)
            patience = rng.expovariate(2.0) if rng.random() < HANG_UP else None
            outcome = await ask(port, body, patience, gaps)
            outcomes[outcome] += 1
            if outcome == "refused":
                await asyncio.sleep(rng.uniform(0.5, 2.5))

    await asyncio.gather(*(client() for _ in range(options.clients)))
    await asyncio.sleep(2)
    after = await metrics(port)
    held = {name: after.get(f"kimi_{name}", -1) for name in ("kv_blocks_used", "requests_running", "requests_waiting")}
    print(f"outcomes: {dict(outcomes)}")
    print(f"preemptions: {after.get('kimi_preemptions_total', 0):.0f}; held afterwards: {held}")
    half = memory[len(memory) // 2]
    print(f"memory: {memory[0]:.0f} MiB at first, {half:.0f} at half, {memory[-1]:.0f} at the end")
    print(f"inter-token p99: alone {p99(alone):.1f} ms, under load {p99(gaps):.1f} ms")
    wrong = [f"{count} × {outcome}" for outcome, count in outcomes.items()
             if outcome not in ("answered", "refused", "left")]
    if not after.get("kimi_preemptions_total"):
        wrong.append("no sequence lost its blocks: give less --kv-memory")
    wrong += [f"{name} is {value:.0f}" for name, value in held.items() if value != 0]
    if memory[-1] > 1.1 * half:
        wrong.append(f"memory grew from {half:.0f} to {memory[-1]:.0f} MiB in the second half")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "target/release/kimi-serve"))
    parser.add_argument("--kv-memory", default="5M", help="so little that sequences lose their blocks to others")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    server, port = start(options.binary, options.kv_memory)
    try:
        wrong = asyncio.run(soak(options, server, port))
    finally:
        server.terminate()
        server.wait(timeout=60)
    if wrong:
        sys.exit("\n".join(wrong))
    print("nothing leaked, nothing lost")


if __name__ == "__main__":
    main()
