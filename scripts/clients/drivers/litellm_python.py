"""litellm, through its OpenAI and its Moonshot adapter. Usage: litellm_python.py ORIGIN ADAPTER"""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # no download at import

import litellm
from checks import BASE_URL, CAPITAL, EXTRACT, MODEL, WEATHER, WEATHER_QUESTION, WEATHER_RESULT, run
from pydantic import BaseModel

NAME = f"{sys.argv[2]}/{MODEL}"


class Person(BaseModel):
    name: str
    age: int


def ask(messages, **options):
    return litellm.completion(
        model=NAME, messages=messages, api_base=BASE_URL, api_key="any", temperature=0, num_retries=0, **options
    )


def chat():
    message = ask([{"role": "user", "content": CAPITAL}]).choices[0].message
    assert "Paris" in message.content and message.reasoning_content, message


def stream():
    messages = [{"role": "user", "content": CAPITAL}]
    whole = ask(messages).choices[0].message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(messages, stream=True)) == whole


def tools():
    messages = [{"role": "user", "content": WEATHER_QUESTION}]
    message = ask(messages, tools=[WEATHER]).choices[0].message
    call = message.tool_calls[0]
    assert json.loads(call.function.arguments)["location"] == "Tokyo", call
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": WEATHER_RESULT}]
    assert "22" in ask(messages, tools=[WEATHER]).choices[0].message.content


def structured():
    content = ask([{"role": "user", "content": EXTRACT}], response_format=Person).choices[0].message.content
    Person.model_validate_json(content)


run(chat=chat, stream=stream, tools=tools, structured=structured)
