"""Starts the built binary on a free port, drives it with real clients over real HTTP, and stops it with SIGTERM.

Usage: run.py [path of the binary]. Exit code 0 when every client was satisfied.
"""

import json
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
START_LIMIT_S = 3.0
OTHER_PROTOCOLS = ("openai_responses.py", "anthropic_python.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(origin: str, server: subprocess.Popen, limit_s: float = 30) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"the server exited with code {server.returncode} before it was ready")
        try:
            with urllib.request.urlopen(f"{origin}/health", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.02)
    raise SystemExit("the server did not become ready")


def first_answer(origin: str) -> str:
    body = {
        "model": "kimi-k2.6",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0,
    }
    request = urllib.request.Request(
        f"{origin}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def main() -> None:
    binary = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "target/release/kimi-serve")
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    started = time.monotonic()
    server = subprocess.Popen([binary, "serve", "--port", str(port)])
    try:
        wait_until_ready(origin, server)
        assert first_answer(origin), "an empty answer"
        elapsed = time.monotonic() - started
        print(f"ok first answer {elapsed:.2f} s after start")
        assert elapsed < START_LIMIT_S, f"first answer took {elapsed:.2f} s; the limit is {START_LIMIT_S} s"

        base_url = f"{origin}/v1"
        subprocess.run([sys.executable, HERE / "openai_python.py", base_url], check=True)
        subprocess.run(["node", "openai_node.mjs", base_url], cwd=HERE, check=True)
        for driver in OTHER_PROTOCOLS:
            print(driver, flush=True)
            subprocess.run([sys.executable, ROOT / "scripts/clients/drivers" / driver, origin], check=True)
        evaluation = [sys.executable, ROOT / "scripts/nano/evaluate.py", "--base-url", base_url]
        subprocess.run([*evaluation, "--per-task", "60", "--seed", "1", "--assert-floors"], check=True)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(timeout=30)
    assert code == 0, f"exit code {code} after SIGTERM"
    print("ok SIGTERM drains and exits with 0")


if __name__ == "__main__":
    main()
