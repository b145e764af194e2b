#!/usr/bin/env python3
"""What the server costs beside the model: CPU time for each token, and memory for each open stream.

    scripts/overhead.py [--binary target/release/kimi-serve] [--streams 256] [--seconds 20] [--idle 2000]

Starts the binary with a scripted engine (`--fake`), so that nothing is computed but what surrounds a model: HTTP, prompt,
scheduling, parsing, streaming. The CPU time is the whole process's, user and system, from /proc; this client's own time is
not in it. Needs Linux and Python 3.10 or newer.
"""

import argparse
import asyncio
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")


def start(binary: str, turn: dict, *options: str) -> tuple[subprocess.Popen, int]:
    """A server that says `turn` to everybody, and its port."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as script:
        json.dump([turn], script)
        script.flush()
        command = [binary, "serve", "--port", "0", "--fake", script.name, *options]
        environment = {**os.environ, "RUST_LOG": "warn"}
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        line = server.stdout.readline()
    if not line.startswith("ready: "):
        sys.exit(f"the server did not start: {line}")
    return server, int(line.rsplit(":", 1)[1].split("/")[0])


def cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_bytes(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


class Stream:
    """One streamed answer, read and counted, not parsed."""

    chunks = 0

    async def open(self, port: int) -> None:
        body = json.dumps({"model": "kimi-k2.6", "stream": True, "max_tokens": 200000,
                           "messages": [{"role": "user", "content": "Say something."}]}).encode()
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                          b"content-length: %d\r\n\r\n" % len(body) + body)
        head = await self.reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            sys.exit(f"a stream was refused: {head}")
        self.task = asyncio.create_task(self.read())

    async def read(self) -> None:
        while data := await self.reader.read(65536):
            self.chunks += data.count(b"data: {")
        self.chunks = float("nan")  # None of them ends by itself.

    def close(self) -> None:
        self.task.cancel()
        self.writer.close()


async def open_streams(port: int, count: int) -> list[Stream]:
    streams = [Stream() for _ in range(count)]
    for begin in range(0, count, 64):
        await asyncio.gather(*(stream.open(port) for stream in streams[begin : begin + 64]))
    return streams


async def tokens(binary: str, count: int, seconds: float) -> float:
    """Microseconds of CPU for each token while `count` streams run."""
    turn = {"text": "A thought.</think>word and word again ", "endless": True, "token_ms": 20}
    server, port = start(binary, turn, "--max-sequences", str(count), "--max-batch-tokens", "16384")
    try:
        streams = await open_streams(port, count)
        await asyncio.sleep(2)
        chunks, cpu = sum(stream.chunks for stream in streams), cpu_seconds(server.pid)
        await asyncio.sleep(seconds)
        chunks, cpu = sum(stream.chunks for stream in streams) - chunks, cpu_seconds(server.pid) - cpu
        for stream in streams:
            stream.close()
    finally:
        server.kill()
    if not chunks > 0:
        sys.exit("a stream ended, or none said anything")
    cost = cpu / chunks * 1e6
    print(f"{count} streams, {chunks} tokens in {seconds:.0f} s: {cost:.1f} µs of CPU for each token")
    return cost


async def memory(binary: str, count: int) -> None:
    """Bytes for each of `count` streams that are open and say next to nothing."""
    turn = {"text": "A thought.</think>word ", "endless": True, "token_ms": 3000}
    options = ["--max-sequences", str(count), "--max-batch-tokens", "131072"]
    server, port = start(binary, turn, *options)
    try:
        before = resident_bytes(server.pid)
        streams = await open_streams(port, count)
        await asyncio.sleep(15)
        after = resident_bytes(server.pid)
        counts = [stream.chunks for stream in streams]
        for stream in streams:
            stream.close()
    finally:
        server.kill()
    if not min(counts) > 0:
        sys.exit("a stream ended, or one said nothing")
    print(f"{count} idle streams hold: {(after - before) / count / 1024:.1f} KiB of memory for each"
          f" ({before >> 20} MiB before, {after >> 20} MiB with them)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "target/release/kimi-serve"))
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--idle", type=int, default=2000)
    parser.add_argument("--limit", type=float, help="fail when a token costs more microseconds than this")
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if args.idle:
        asyncio.run(memory(args.binary, args.idle))
    cost = asyncio.run(tokens(args.binary, args.streams, args.seconds))
    if args.limit and cost > args.limit:
        sys.exit(f"more than {args.limit} µs")


if __name__ == "__main__":
    main()
