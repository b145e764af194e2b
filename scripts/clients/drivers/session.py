"""Runs Python snippets one after another in one namespace. Standard input: JSON, a list of [name, code]."""

import contextlib
import io
import json
import sys
import traceback

# What the guides leave to the reader.
namespace = {
    "fetch_weather": lambda location, unit: {"temperature": 22, "unit": unit},
    "run_ripgrep": lambda query: "src/login.js:12: form.onsubmit = submit",
    "run_pytest": lambda: "2 passed",
}
for name, code in json.load(sys.stdin):
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(code, name, "exec"), namespace)
        result = "ok"
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        result = f"failed: line {line}: {type(error).__name__}: {error}".replace("\n", " ")[:300]
    print("@@" + json.dumps({name: result}), flush=True)
