"""Agents, headless: each is given a task whose every step is scripted, and must do with its own tools what it is told.

The model is a script (`kimi-serve serve --fake`); everything else is real. A tool loop has worked when the agent ran the
command it was told to run and then said the last sentence of the script.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from registry import ENVIRONMENTS, NODE

TASK = "Write the proof file."
GREETING = "Say the watchword."
WATCHWORD = "pomegranate"
PROOF = "the tool ran"
DONE = "The proof file is written."
COMMAND = f"echo '{PROOF}' > proof.txt"
LIMIT_S = 180


@dataclass(frozen=True)
class Agent:
    """An agent: how it is started with a prompt, and the call its script makes."""

    name: str
    version: str
    environments: tuple[str, ...]
    tool: str
    arguments: dict

    def script(self) -> list[dict]:
        """What the model says: the task's one call, its end, the watchword, and something for side requests.

        Agents add messages of their own after the person's and after a tool's, so the whole prompt is looked at. Of two
        turns that suit, the server takes the one it has said less often, so the call comes before its end.
        """
        call = {"name": self.tool, "arguments": self.arguments}
        return [
            {"match_prompt": "## Return of functions", "reasoning": "It ran.", "content": DONE},
            {"match_prompt": TASK, "reasoning": "I run it.", "tool_calls": [call]},
            {"match_prompt": GREETING, "reasoning": "Easy.", "content": WATCHWORD},
            {"content": "A short title"},
        ]

    def command(self, prompt: str) -> list[str]:
        return COMMANDS[self.name](prompt)

    def environment(self, origin: str, home: Path) -> dict[str, str]:
        base = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb", "LANG": "C.UTF-8"}
        return base | VARIABLES[self.name](origin, home)


def _bin(environment: str, path: str) -> str:
    return str(ENVIRONMENTS[environment].path / path)


COMMANDS = {
    "kimi-code": lambda prompt: [
        str(NODE),
        _bin("kimi-code", "node_modules/.bin/kimi"),
        "-p",
        prompt,
    ],
    "Claude Code": lambda prompt: [
        _bin("claude-code", "node_modules/@anthropic-ai/claude-code-linux-x64/claude"),
        "-p",
        prompt,
        "--allowedTools",
        "Bash",
    ],
    "opencode": lambda prompt: [_bin("opencode", "node_modules/opencode-linux-x64-baseline/bin/opencode"), "run", prompt],
    "codex": lambda prompt: [
        _bin("codex", "node_modules/.bin/codex"),
        "exec",
        "--skip-git-repo-check",
        "--dangerously-bypass-approvals-and-sandbox",
        prompt,
    ],
    "aider": lambda prompt: [
        _bin("aider", "bin/aider"),
        "--model",
        "openai/kimi-k2.6",
        *("--yes", "--no-git", "--no-check-update", "--no-show-model-warnings", "--analytics-disable"),
        *("--no-show-release-notes", "--no-detect-urls", "--message", prompt, "proof.txt"),
    ],
}


def _kimi_code(origin: str, home: Path) -> dict[str, str]:
    return {
        "KIMI_MODEL_NAME": "kimi-k2.6",
        "KIMI_MODEL_API_KEY": "any",
        "KIMI_MODEL_BASE_URL": f"{origin}/v1",
        "KIMI_MODEL_MAX_CONTEXT_SIZE": "262144",
        "KIMI_MODEL_CAPABILITIES": "thinking",
        "KIMI_CODE_HOME": str(home / "kimi"),
        "KIMI_DISABLE_TELEMETRY": "1",
    }


def _claude_code(origin: str, home: Path) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": origin,
        "ANTHROPIC_AUTH_TOKEN": "any",
        "ANTHROPIC_MODEL": "kimi-k2.6",
        "ANTHROPIC_SMALL_FAST_MODEL": "kimi-k2.6",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


def _opencode(origin: str, home: Path) -> dict[str, str]:
    model = {"name": "Kimi", "reasoning": True, "interleaved": {"field": "reasoning_content"}, "tool_call": True}
    model["limit"] = {"context": 262144, "output": 32000}
    options = {"baseURL": f"{origin}/v1", "apiKey": "any"}
    provider = {"npm": "@ai-sdk/openai-compatible", "options": options, "models": {"kimi-k2.6": model}}
    config = {"provider": {"local": provider}, "model": "local/kimi-k2.6", "small_model": "local/kimi-k2.6"}
    path = home / "opencode.json"
    path.write_text(json.dumps(config | {"autoupdate": False, "share": "disabled"}))
    return {"OPENCODE_CONFIG": str(path), "OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}


def _codex(origin: str, home: Path) -> dict[str, str]:
    folder = home / "codex"
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(
        'model = "kimi-k2.6"\nmodel_provider = "local"\n[model_providers.local]\nname = "local"\n'
        f'base_url = "{origin}/v1"\nenv_key = "LOCAL_KEY"\nwire_api = "responses"\n'
    )
    return {"CODEX_HOME": str(folder), "LOCAL_KEY": "any"}


def _aider(origin: str, home: Path) -> dict[str, str]:
    return {
        "OPENAI_API_BASE": f"{origin}/v1",
        "OPENAI_API_KEY": "any",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "AIDER_ANALYTICS": "false",
    }


VARIABLES = {
    "kimi-code": _kimi_code,
    "Claude Code": _claude_code,
    "opencode": _opencode,
    "codex": _codex,
    "aider": _aider,
}

SHELL = {"command": COMMAND, "description": "Write the proof file"}


class Aider(Agent):
    """Edits files by blocks of text instead of calling tools."""

    def script(self) -> list[dict]:
        edit = f"proof.txt\n```\n{PROOF}\n```\n{DONE}\n"
        return [
            {"match_prompt": TASK, "reasoning": "I write it.", "content": edit},
            {"match_prompt": GREETING, "reasoning": "Easy.", "content": WATCHWORD},
            {"content": "A short title"},
        ]


AGENTS = (
    Agent("kimi-code", "2.1.0", ("kimi-code",), "Bash", {"command": COMMAND}),
    Agent("Claude Code", "2.1.329", ("claude-code",), "Bash", SHELL),
    Agent("opencode", "1.18.33", ("opencode",), "bash", SHELL),
    Agent("codex", "0.169.0", ("codex",), "exec_command", {"cmd": COMMAND}),
    Aider("aider", "0.86.2", ("aider",), "", {}),
)


def drive(agent: Agent, prompt: str, origin: str, folder: Path) -> tuple[str, str]:
    """Runs the agent on a prompt in an empty folder. Returns its output and why it failed, which is empty if it did not."""
    work, home = folder / "work", folder / "home"
    work.mkdir(parents=True, exist_ok=True)
    home.mkdir(exist_ok=True)
    try:
        finished = subprocess.run(
            agent.command(prompt),
            cwd=work,
            env=agent.environment(origin, home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return "", f"not finished after {LIMIT_S} s"
    output = finished.stdout + finished.stderr
    return output, "" if finished.returncode == 0 else f"exit code {finished.returncode}: {output[-200:].strip()}"


def chat(agent: Agent, origin: str, folder: Path) -> str:
    output, why = drive(agent, GREETING, origin, folder)
    return why or ("" if WATCHWORD in output else f"no watchword in its output: {output[-200:].strip()}")


def tools(agent: Agent, origin: str, folder: Path) -> str:
    output, why = drive(agent, TASK, origin, folder)
    proof = folder / "work/proof.txt"
    if why or not proof.exists():
        return why or f"the tool did not run: {output[-200:].strip()}"
    if proof.read_text().strip() != PROOF:
        return f"the proof file says {proof.read_text()[:80]!r}"
    return "" if DONE in output else f"the loop did not come back: {output[-200:].strip()}"
