#!/usr/bin/env python3
"""Lets schemathesis fuzz the described API of a server with scripted answers.

Usage: api.py [path of the binary] [--examples N] [--seed N] [-- options of the server]. Exit code 0 when no request gave a
5xx or an answer other than described.
"""

import argparse
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Answers that end by themselves, and others that repeat themselves, so that there is something to draft.
SCRIPT = [{"hash": True}, {"text": "Again.</think>and again ", "endless": True}]
CHECKS = "not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(origin: str, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{origin}/health", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not become ready")


def description(origin: str) -> dict:
    """What the server says it serves, with its model's name: a random name is 404 before anything else is looked at."""
    with urllib.request.urlopen(f"{origin}/openapi.json", timeout=5) as answer:
        api = json.load(answer)
    name = {"enum": ["kimi-k2.6"]}
    for schema in api["components"]["schemas"].values():
        if schema.get("title") is None and "model" in schema.get("properties", {}):
            schema["properties"]["model"] = name
    api["paths"]["/v1/models/{name}"]["get"]["parameters"][0]["schema"] = name
    return api


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?", default=str(ROOT / "target/release/kimi-serve"))
    parser.add_argument("--examples", type=int, default=300, help="cases per operation and phase")
    parser.add_argument("--seed", type=int, default=1)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    directory = tempfile.mkdtemp(prefix="kimi-fuzz-")
    script = pathlib.Path(directory, "script.json")
    script.write_text(json.dumps(SCRIPT))
    # A short context ends answers that would go on for ever.
    command = [arguments.binary, "serve", "--fake", str(script), "--max-context", "512", "--port", str(port), *options]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(origin)
        schemathesis = pathlib.Path(sys.executable).parent / "schemathesis"
        described = pathlib.Path(directory, "openapi.json")
        described.write_text(json.dumps(description(origin)))
        fuzz = [
            str(schemathesis), "run", str(described), "--url", origin, "--checks", CHECKS, "--mode", "all",
            "--phases", "examples,coverage,fuzzing", "--max-examples", str(arguments.examples),
            "--seed", str(arguments.seed), "--continue-on-failure",
        ]  # fmt: skip
        result = subprocess.run(fuzz, check=False, cwd=directory)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
        shutil.rmtree(directory)
    raise SystemExit(result.returncode)


if __name__ == "__main__":
    main()
