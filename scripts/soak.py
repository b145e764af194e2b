#!/usr/bin/env python3
"""Ten thousand requests of mixed shape, a fifth of whose clients hang up, against a queue that overflows.

    scripts/soak.py [--binary target/release/kimi-serve] [--requests 10000] [--clients 128] [--kv-memory 2M] [--seed 1]

Starts the binary with kimi-nano and a cache too small for everybody, so that sequences are preempted. Exit code 1 when a
request was neither answered nor refused in the documented form, when a block or a sequence is still held afterwards, or
when memory grew in the second half by more than a tenth. Prints inter-token times beside those of one stream alone, and of as many
clients as are computed together and never hang up. Needs Linux and Python 3.10 or newer.
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
TOGETHER = 32  # requests that the server computes at once


def start(binary: str, kv_memory: str) -> tuple[subprocess.Popen, int]:
    command = [binary, "serve", "--port", "0", "--queue", "64", "--kv-memory", kv_memory,
               "--max-sequences", str(TOGETHER)]
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


class Crowd:
    """Clients that ask one thing after the other."""

    def __init__(self, server: subprocess.Popen, port: int, rng: random.Random, requests: int, hang_up: float):
        self.server, self.port, self.rng, self.requests, self.hang_up = server, port, rng, requests, hang_up
        self.shared = " ".join(rng.choice(WORDS) for _ in range(250))
        self.asked, self.outcomes, self.gaps, self.memory = 0, Counter(), [], []

    async def ask_all(self, clients: int) -> None:
        await asyncio.gather(*(self.client() for _ in range(clients)))

    async def client(self) -> None:
        while self.asked < self.requests:
            self.asked += 1
            if self.asked % (self.requests // 20) == 0:
                self.memory.append(resident_mib(self.server.pid))
                told = f"{self.asked} asked, {dict(self.outcomes)}, {self.memory[-1]:.0f} MiB"
                print(told, file=sys.stderr, flush=True)
            body = request(self.rng, self.shared)
            patience = self.rng.expovariate(2.0) if self.rng.random() < self.hang_up else None
            outcome = await ask(self.port, body, patience, self.gaps)
            self.outcomes[outcome] += 1
            if outcome == "refused":
                await asyncio.sleep(self.rng.uniform(0.5, 2.5))


async def soak(options: argparse.Namespace, server: subprocess.Popen, port: int) -> list[str]:
    rng = random.Random(options.seed)
    alone: list[float] = []
    for _ in range(3):
        body = {"model": "kimi-k2.6", "messages": [{"role": "user", "content": "Hello"}], "stream": True,
                "max_tokens": 300, "min_tokens": 300}
        await ask(port, body, None, alone)
    calm = Crowd(server, port, rng, max(options.requests // 5, 20), 0)
    await calm.ask_all(TOGETHER)
    crowd = Crowd(server, port, rng, options.requests, HANG_UP)
    await crowd.ask_all(options.clients)
    outcomes, memory = crowd.outcomes + calm.outcomes, crowd.memory
    await asyncio.sleep(2)
    after = await metrics(port)
    held = {name: after.get(f"kimi_{name}", -1) for name in ("kv_blocks_used", "requests_running", "requests_waiting")}
    print(f"outcomes: {dict(outcomes)}")
    print(f"preemptions: {after.get('kimi_preemptions_total', 0):.0f}; held afterwards: {held}")
    half = memory[len(memory) // 2]
    print(f"memory: {memory[0]:.0f} MiB at first, {half:.0f} at half, {memory[-1]:.0f} at the end")
    calm_p99, crowd_p99 = p99(calm.gaps), p99(crowd.gaps)
    print(f"inter-token p99: alone {p99(alone):.1f} ms, {TOGETHER} clients {calm_p99:.1f} ms, "
          f"{options.clients} clients {crowd_p99:.1f} ms: {crowd_p99 / calm_p99:.2f} times those {TOGETHER}")
    wrong = [f"{count} × {outcome}" for outcome, count in outcomes.items()
             if outcome not in ("answered", "refused", "left")]
    if calm.outcomes["refused"]:
        wrong.append(f"{calm.outcomes['refused']} requests were refused although nobody waited")
    if not after.get("kimi_preemptions_total"):
        wrong.append("no sequence lost its blocks: give less --kv-memory")
    wrong += [f"{name} is {value:.0f}" for name, value in held.items() if value != 0]
    if memory[-1] > 1.1 * half:
        wrong.append(f"memory grew from {half:.0f} to {memory[-1]:.0f} MiB in the second half")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "target/release/kimi-serve"))
    parser.add_argument("--kv-memory", default="2M", help="so little that sequences lose their blocks to others")
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
