"""OpenAI's Python SDK, chat completions."""

import json

import openai
from checks import BASE_URL, CAPITAL, EXTRACT, MODEL, WEATHER, WEATHER_QUESTION, WEATHER_RESULT, run
from pydantic import BaseModel

client = openai.OpenAI(base_url=BASE_URL, api_key="any", max_retries=0)


class Person(BaseModel):
    name: str
    age: int


def ask(messages, **options):
    return client.chat.completions.create(model=MODEL, messages=messages, temperature=0, **options)


def chat():
    message = ask([{"role": "user", "content": CAPITAL}]).choices[0].message
    assert "Paris" in message.content and message.reasoning_content, message


def stream():
    messages = [{"role": "user", "content": CAPITAL}]
    whole = ask(messages).choices[0].message.content
    chunks = ask(messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole


def tools():
    messages = [{"role": "user", "content": WEATHER_QUESTION}]
    message = ask(messages, tools=[WEATHER]).choices[0].message
    call = message.tool_calls[0]
    assert json.loads(call.function.arguments)["location"] == "Tokyo", call
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": WEATHER_RESULT}]
    assert "22" in ask(messages, tools=[WEATHER]).choices[0].message.content


def structured():
    messages = [{"role": "user", "content": EXTRACT}]
    answer = client.chat.completions.parse(model=MODEL, messages=messages, temperature=0, response_format=Person)
    assert isinstance(answer.choices[0].message.parsed, Person), answer


run(chat=chat, stream=stream, tools=tools, structured=structured)
