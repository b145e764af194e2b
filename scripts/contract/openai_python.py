"""What a user of OpenAI's Python SDK does, with only `base_url` changed. Usage: openai_python.py BASE_URL

Every check is an assertion on what came over the wire; the model's wording is checked only where kimi-nano is sure.
"""

import json
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="any", max_retries=0)
MODEL = "kimi-k2.6"
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a location.",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "City name"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["location"],
        },
    },
}


def whole(messages, **options):
    return client.chat.completions.create(model=MODEL, messages=messages, temperature=0, **options)


def streamed(messages, **options):
    """The same request as a stream, folded: (order of fields, reasoning, content, finish reason, usage)."""
    order, text, finish, usage = [], {"reasoning_content": "", "content": ""}, None, None
    stream = client.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, stream=True, stream_options={"include_usage": True}, **options
    )
    for chunk in stream:
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for field in text:
                piece = getattr(choice.delta, field, None)
                if piece:
                    text[field] += piece
                    if not order or order[-1] != field:
                        order.append(field)
    return order, text["reasoning_content"], text["content"], finish, usage


def thinking_streamed_equals_whole():
    answer = whole(CAPITAL)
    message = answer.choices[0].message
    assert "Paris" in message.content, message
    assert message.reasoning_content, message
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens

    order, reasoning, content, finish, usage = streamed(CAPITAL)
    assert order == ["reasoning_content", "content"], order
    assert (reasoning, content, finish) == (message.reasoning_content, message.content, "stop")
    assert usage.completion_tokens == answer.usage.completion_tokens


def instant_mode_has_no_reasoning():
    message = whole(CAPITAL, extra_body={"thinking": {"type": "disabled"}}).choices[0].message
    assert "Paris" in message.content
    assert getattr(message, "reasoning_content", None) is None


def tool_loop():
    messages = [{"role": "user", "content": "What's the weather in Tokyo?"}]
    first = whole(messages, tools=[WEATHER], tool_choice="auto").choices[0]
    assert first.finish_reason == "tool_calls", first
    call = first.message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["location"] == "Tokyo"
    assert call.id == "functions.get_weather:0"
    messages.append(first.message)
    result = json.dumps({"temperature": 22, "unit": "celsius", "condition": "sunny"})
    messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    final = whole(messages, tools=[WEATHER]).choices[0]
    assert final.finish_reason == "stop"
    assert "22" in final.message.content, final


def keep_all_changes_the_prompt():
    history = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!", "reasoning_content": "The user greets me."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    dropped = whole(history, max_tokens=1).usage.prompt_tokens
    kept = whole(history, max_tokens=1, extra_body={"thinking": {"type": "enabled", "keep": "all"}})
    assert kept.usage.prompt_tokens > dropped
    assert kept.choices[0].finish_reason == "length"


def seed_repeats():
    poem = [{"role": "user", "content": "Write a haiku about the ocean."}]
    one, two = (client.chat.completions.create(model=MODEL, messages=poem, seed=7) for _ in range(2))
    assert one.choices[0].message == two.choices[0].message


def logprobs_are_log_probabilities():
    answer = whole(CAPITAL, logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    assert entries and all(entry.logprob <= 0 and len(entry.top_logprobs) == 3 for entry in entries)
    assert "".join(entry.token for entry in entries) == answer.choices[0].message.content


def stop_strings_cut():
    content = whole(CAPITAL, stop=["Par"]).choices[0].message.content
    assert "Par" not in content


def models_and_errors():
    assert [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id
    for failing, kind in (
        (lambda: client.chat.completions.create(model="gpt-4", messages=CAPITAL), openai.NotFoundError),
        (lambda: client.chat.completions.create(model=MODEL, messages=[]), openai.BadRequestError),
        (lambda: whole([{"role": "user", "content": "word " * 20000}]), openai.BadRequestError),
    ):
        try:
            failing()
        except kind as error:
            assert error.body["message"], error
        else:
            raise AssertionError(f"expected {kind.__name__}")


CHECKS = [
    thinking_streamed_equals_whole,
    instant_mode_has_no_reasoning,
    tool_loop,
    keep_all_changes_the_prompt,
    seed_repeats,
    logprobs_are_log_probabilities,
    stop_strings_cut,
    models_and_errors,
]
for check in CHECKS:
    check()
    print(f"ok python {check.__name__}", flush=True)
