"""What every Python driver shares: the model's name, the questions, and a line of output for each check.

A driver's arguments are the server's origin, then its own; `--only=NAME,NAME` leaves out other checks.
"""

import json
import sys
import traceback

ORIGIN = sys.argv[1]
BASE_URL = f"{ORIGIN}/v1"
MODEL = "kimi-k2.6"
CAPITAL = "What is the capital of France?"
WEATHER_QUESTION = "What's the weather in Tokyo?"
WEATHER_RESULT = json.dumps({"temperature": 22, "unit": "celsius", "condition": "sunny"})
WEATHER_SCHEMA = {
    "type": "object",
    "properties": {
        "location": {"type": "string", "description": "City name"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    "required": ["location"],
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a location.",
        "parameters": WEATHER_SCHEMA,
    },
}
EXTRACT = "Ada is 36 years old. Give her name and age as JSON."


def run(**checks):
    """Runs each check and prints `ok NAME` or `failed NAME: why`. Exit code 1 when one failed."""
    failed = False
    only = next((option.removeprefix("--only=").split(",") for option in sys.argv if option.startswith("--only=")), checks)
    for name, check in checks.items():
        if name not in only:
            continue
        try:
            check()
            print(f"ok {name}", flush=True)
        except Exception as error:  # whatever a client raises is a result
            failed = True
            why = f"{type(error).__name__}: {error}".replace("\n", " ")
            if type(error) is AssertionError:
                where = traceback.extract_tb(error.__traceback__)[-1]
                why = f"line {where.lineno}: {where.line} {error}".replace("\n", " ")
            print(f"failed {name}: {why[:300]}", flush=True)
    sys.exit(failed)
