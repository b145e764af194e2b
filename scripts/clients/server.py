"""A server of the built binary on a free port, for as long as a `with` block lasts."""

import contextlib
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "target/release/kimi-serve"


@contextlib.contextmanager
def serving(binary: Path, *arguments: str):
    """Yields `http://HOST:PORT`; the log goes to the caller's standard error."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    origin = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([binary, "serve", "--port", str(port), *arguments], stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(origin, server)
        yield origin
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=40)


def wait_until_ready(origin: str, server: subprocess.Popen, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"the server exited with code {server.returncode} before it was ready")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{origin}/health", timeout=1) as answer:
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise SystemExit(f"the server was not ready after {limit_s} seconds")
