"""Where the snippets are in the guides' texts: after which line, from which line to which. The texts stay outside."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Snippet:
    """A snippet, found by the beginnings of lines."""

    guide: str
    language: str
    name: str
    after_line: str
    first: str
    last: str
    # How many lines that begin like `last` belong to it.
    count: int = 1
    # Steps of indentation of each line, where the text has lost it.
    indent: str = ""
    # What a reader would add to see it work.
    after: str = ""
    code: str = ""

    def cut(self, text: str) -> "Snippet":
        """The snippet with its code."""
        lines = text.splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith(self.after_line))
        start = next(i for i in range(start, len(lines)) if lines[i].startswith(self.first))
        ends = [i for i in range(start, len(lines)) if self._ends(lines[i])]
        code = lines[start : ends[self.count - 1] + 1]
        if self.indent:
            assert len(self.indent) == len(code), (self.name, len(code))
            code = ["    " * int(steps) + line.strip() for steps, line in zip(self.indent, code)]
        return replace(self, code="\n".join(code) + "\n")

    def _ends(self, line: str) -> bool:
        # A bracket alone is the end of a call, not the beginning of a longer line.
        return line == self.last if self.last in (")", "]", "}", "}'", "});") else line.startswith(self.last)


def _guide(guide: str):
    def snippet(language: str, name: str, after_line: str, first: str, last: str, **more) -> Snippet:
        return Snippet(guide, language, name, after_line, first, last, **more)

    return snippet


S0, S1, S2, S3 = (_guide(f"S{number}.txt") for number in range(4))
ASK = "response = client"
# Between brackets any indentation will do.
ISSUE_FIXER = "0" * 31 + "012312121" + "00000" + "11111111221222222"

SNIPPETS = (
    S0("python", "basic", "Basic chat completion", "from openai", "print(response.choices[0].message.reasoning_content"),
    S0("js", "basic", "JavaScript/TypeScript", "import OpenAI", "console.log"),
    S0("python", "instant mode", "Instant mode", ASK, ")"),
    S0("python", "preserve thinking", "Preserve thinking", ASK, ")"),
    S0("python", "streaming", "Streaming", "stream = client", "        print(delta.content"),
    S0("python", "image", "Image understanding", "import base64", ")"),
    S0("python", "video", "Video input", ASK, ")"),
    S0("python", "OpenRouter id", "OpenRouter", "client = OpenAI", ")", count=2),
    S1("curl", "minimal", "Minimal curl", "curl ", "}'"),
    S1("python", "basic", "Python example", "import os", "print("),
    S1("js", "basic", "Node.js example", "import OpenAI", "console.log"),
    S1("curl", "basic", "curl example", "curl ", "}'"),
    S1("json", "request body", "The schema matches", "{", "}"),
    S1("python", "streaming", "Python streaming", "stream = client", "print(delta", indent="011100112"),
    S1("js", "streaming", "Node.js streaming", "const stream", "}", count=1),
    S1("python", "tool definitions", "Define tools", "tools = [", "]"),
    S1("python", "first call", "First call", "import json", "})", indent="0001111000012223332"),
    S1("python", "second call", "Second call", "final = client", "print(final"),
    S1("python", "image", "Example:", ASK, ")"),
    S1("python", "image file", "Local files", "import base64", "image_url =", indent="0010"),
    S1("python", "video", "Pass a video URL", ASK, ")"),
    S1("python", "thinking on", "Thinking on", ASK, ")"),
    S1("python", "thinking off", "Thinking off", ASK, ")"),
    S1("python", "swarm", "Invoke via", ASK, ")"),
    S1(
        "python",
        "retries",
        "Retry wrapper",
        "import time",
        "raise RuntimeError",
        indent="00012344323234341",
        after='call_kimi([{"role": "user", "content": "Hi"}])\n',
    ),
    S1("python", "issue fixer", "Agent structure", "from openai", "})", indent=ISSUE_FIXER),
    S2("curl", "basic", "cURL", "curl ", "  }'"),
    S2("python", "basic", "Python (OpenAI SDK)", "from openai", "print("),
    S3("curl", "basic", "POST /v1/chat", "curl ", "}'"),
    S3("python", "basic", "}'", "from openai", ")", count=2),
    S3("js", "basic", "import OpenAI", "import OpenAI", "});", count=2),
)
