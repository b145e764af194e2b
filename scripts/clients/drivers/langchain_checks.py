"""The checks of both LangChain packages; only the class differs."""

import os

from checks import CAPITAL, EXTRACT, WEATHER_QUESTION, WEATHER_RESULT, run
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

os.environ["LANGSMITH_TRACING"] = "false"


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def get_weather(location: str) -> str:
    """Get the current weather in a location."""
    return WEATHER_RESULT


def run_with(model):
    """Runs the checks with a chat model."""

    def chat():
        assert "Paris" in model.invoke(CAPITAL).content

    def stream():
        assert "".join(chunk.content for chunk in model.stream(CAPITAL)) == model.invoke(CAPITAL).content

    def tools():
        bound = model.bind_tools([get_weather])
        messages = [HumanMessage(WEATHER_QUESTION)]
        message = bound.invoke(messages)
        call = message.tool_calls[0]
        assert call["args"]["location"] == "Tokyo", call
        messages += [message, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])]
        assert "22" in bound.invoke(messages).content

    def structured():
        # Some versions prefer a forced tool call; this is the one that constrains the answer itself.
        answer = model.with_structured_output(Person, method="json_schema").invoke(EXTRACT)
        assert isinstance(answer, Person), answer

    run(chat=chat, stream=stream, tools=tools, structured=structured)
