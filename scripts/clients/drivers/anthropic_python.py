"""Anthropic's Python SDK."""

import anthropic
from checks import CAPITAL, EXTRACT, MODEL, ORIGIN, WEATHER_QUESTION, WEATHER_RESULT, WEATHER_SCHEMA, run
from pydantic import BaseModel

client = anthropic.Anthropic(base_url=ORIGIN, api_key="any", max_retries=0)
TOOL = {"name": "get_weather", "description": "Get the current weather in a location.", "input_schema": WEATHER_SCHEMA}


class Person(BaseModel):
    name: str
    age: int


def request(messages, **options):
    # This SDK no longer has the parameter; with it answers repeat.
    return {"model": MODEL, "messages": messages, "max_tokens": 2000, "extra_body": {"temperature": 0}, **options}


def user(text):
    return [{"role": "user", "content": text}]


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def chat():
    message = client.messages.create(**request(user(CAPITAL)))
    assert [block.type for block in message.content] == ["thinking", "text"], message
    assert "Paris" in text_of(message) and message.stop_reason == "end_turn", message
    counted = client.messages.count_tokens(model=MODEL, messages=user(CAPITAL))
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens, (counted, usage)


def stream():
    whole = client.messages.create(**request(user(CAPITAL)))
    with client.messages.stream(**request(user(CAPITAL))) as events:
        text = "".join(events.text_stream)
        final = events.get_final_message()
    assert text == text_of(final) == text_of(whole)
    assert final.content[0].thinking == whole.content[0].thinking
    assert final.usage.output_tokens == whole.usage.output_tokens


def tools():
    messages = user(WEATHER_QUESTION)
    message = client.messages.create(**request(messages, tools=[TOOL]))
    assert message.stop_reason == "tool_use", message
    call = message.content[-1]
    assert call.input["location"] == "Tokyo", call
    result = {"type": "tool_result", "tool_use_id": call.id, "content": WEATHER_RESULT}
    messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    assert "22" in text_of(client.messages.create(**request(messages, tools=[TOOL])))


def structured():
    message = client.messages.parse(**request(user(EXTRACT), output_format=Person))
    assert isinstance(message.parsed_output, Person), message


def errors():
    for options, kind in (
        ({"model": "no-such-model"}, anthropic.NotFoundError),
        ({"messages": []}, anthropic.BadRequestError),
    ):
        try:
            client.messages.create(**request(user(CAPITAL)) | options)
        except kind as error:
            assert error.body["type"] == "error" and error.request_id == error.body["request_id"], error.body
        else:
            raise AssertionError(f"expected {kind.__name__}")


run(chat=chat, stream=stream, tools=tools, structured=structured, errors=errors)
