"""OpenAI's Python SDK, responses."""

import json

import openai
from checks import BASE_URL, CAPITAL, EXTRACT, MODEL, WEATHER, WEATHER_QUESTION, WEATHER_RESULT, run
from pydantic import BaseModel

client = openai.OpenAI(base_url=BASE_URL, api_key="any", max_retries=0)
TOOL = {"type": "function", "strict": False, **WEATHER["function"]}


class Person(BaseModel):
    name: str
    age: int


def ask(items, **options):
    return client.responses.create(model=MODEL, input=items, temperature=0, **options)


def chat():
    answer = ask(CAPITAL)
    assert "Paris" in answer.output_text and answer.status == "completed", answer
    assert [item.type for item in answer.output] == ["reasoning", "message"]


def stream():
    with client.responses.stream(model=MODEL, input=CAPITAL, temperature=0) as events:
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        final = events.get_final_response()
    assert text == final.output_text == ask(CAPITAL).output_text


def tools():
    items = [{"role": "user", "content": WEATHER_QUESTION}]
    output = ask(items, tools=[TOOL]).output
    call = next(item for item in output if item.type == "function_call")
    assert json.loads(call.arguments)["location"] == "Tokyo", call
    items += [*output, {"type": "function_call_output", "call_id": call.call_id, "output": WEATHER_RESULT}]
    assert "22" in ask(items, tools=[TOOL]).output_text


def structured():
    answer = client.responses.parse(model=MODEL, input=EXTRACT, temperature=0, text_format=Person)
    assert isinstance(answer.output_parsed, Person), answer


run(chat=chat, stream=stream, tools=tools, structured=structured)
