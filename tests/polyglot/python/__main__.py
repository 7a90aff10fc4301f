"""Runs the scenarios of tests/polyglot/scenarios.py: `python -m tests.polyglot.python ADDRESS`."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from lmchat.v1 import chat_pb2

from tests.polyglot.python.client import ChatError, Client, Stream

PNG = b"\x89PNG\r\n\x1a\n"


def show(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def hello(model: str, **fields: Any) -> chat_pb2.ChatCompletionRequest:
    return request(model, chat_pb2.ContentPart(text="Hello"), **fields)


def request(model: str, *parts: chat_pb2.ContentPart, **fields: Any) -> chat_pb2.ChatCompletionRequest:
    return chat_pb2.ChatCompletionRequest(
        model=model,
        messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=parts)],
        stream_options=chat_pb2.StreamOptions(include_usage=True),
        **fields,
    )


def text(message: chat_pb2.Message) -> str:
    return "".join(part.text for part in message.content)


def summary(completion: chat_pb2.ChatCompletion) -> dict[str, Any]:
    choices = [
        {
            "content": text(choice.message),
            "reasoning": choice.message.reasoning_content,
            "refusal": choice.message.refusal,
            "tool_calls": [
                {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
                for call in choice.message.tool_calls
            ],
            "finish_reason": chat_pb2.FinishReason.Name(choice.finish_reason),
            "stop_sequence": choice.stop_sequence,
        }
        for choice in completion.choices
    ]
    return {
        "choices": choices,
        "total_tokens": completion.usage.total_tokens,
        "provider": completion.lmchat.provider,
    }


def print_tokens(stream: Stream) -> chat_pb2.ChatCompletion:
    """Hand on the tokens as they arrive; the completion."""
    for chunk in stream:
        for choice in chunk.choices:
            if choice.delta.content:
                show(token=choice.delta.content)
    return stream.completion


# Scenarios: each gives what is printed as `done`.


def unary(client: Client, model: str) -> Any:
    return summary(client.complete(hello(model)))


def stream(client: Client, model: str) -> Any:
    return summary(print_tokens(client.stream(hello(model))))


def stop_sequence(client: Client, model: str) -> Any:
    return summary(print_tokens(client.stream(hello(model, stop=["END"]))))


def two_choices(client: Client, model: str) -> Any:
    return summary(print_tokens(client.stream(hello(model, n=2))))


WEATHER = chat_pb2.Tool(
    function=chat_pb2.FunctionDefinition(
        name="weather",
        parameters_json=json.dumps(
            {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        ),
    )
)


def weather(city: str) -> str:
    return f"18 degrees in {city}"


def tool_calls(client: Client, model: str) -> Any:
    return summary(print_tokens(client.stream(hello(model, tools=[WEATHER]))))


def tools_two_turns(client: Client, model: str) -> Any:
    turn = hello(model, tools=[WEATHER])
    while True:
        completion = print_tokens(client.stream(turn))
        message = completion.choices[0].message
        if not message.tool_calls:
            return summary(completion)
        turn.messages.append(message)
        for call in message.tool_calls:
            result = weather(**json.loads(call.function.arguments))
            turn.messages.add(role=chat_pb2.ROLE_TOOL, tool_call_id=call.id).content.add(text=result)


@dataclass
class City:
    city: str
    country: str


CITY_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
    "required": ["city", "country"],
    "additionalProperties": False,
}


def structured_output(client: Client, model: str) -> Any:
    schema = chat_pb2.JsonSchemaFormat(name="city", schema_json=json.dumps(CITY_SCHEMA), strict=True)
    completion = client.complete(hello(model, response_format=chat_pb2.ResponseFormat(json_schema=schema)))
    return asdict(City(**json.loads(text(completion.choices[0].message))))


def image(client: Client, model: str) -> Any:
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    picture = chat_pb2.ContentPart(image_url=chat_pb2.ImageUrl(url=url))
    return summary(client.complete(request(model, chat_pb2.ContentPart(text="What is this?"), picture)))


def large_completion(client: Client, model: str) -> Any:
    return {"characters": len(text(client.complete(hello(model)).choices[0].message))}


def fallback(client: Client, model: str) -> Any:
    options = chat_pb2.RequestOptions(routing=chat_pb2.Routing(max_provider_tries=2))
    return summary(client.complete(hello(model, lmchat=options)))


def get_model(client: Client, model: str) -> Any:
    found = client.model(model)
    return {"id": found.id, "context_length": found.lmchat.context_length}


def invalid_field(client: Client, model: str) -> Any:
    return summary(client.complete(hello(model, temperature=9)))


def invalid_field_stream(client: Client, model: str) -> Any:
    return summary(print_tokens(client.stream(hello(model, temperature=9))))


def deadline(client: Client, model: str) -> Any:
    return summary(client.complete(hello(model), timeout=0.5))


def deadline_stream(client: Client, model: str) -> Any:
    return summary(print_tokens(client.stream(hello(model), timeout=0.5)))


def cancel(client: Client, model: str) -> Any:
    chunks = client.stream(hello(model))
    try:
        for chunk in chunks:
            for choice in chunk.choices:
                if choice.delta.content:
                    show(token=choice.delta.content)
                    chunks.cancel()
    except ChatError as error:
        return {"cancelled": error.code.name == "CANCELLED"}
    return {"cancelled": False}


def leave(client: Client, model: str) -> Any:
    for chunk in client.stream(hello(model)):
        for choice in chunk.choices:
            if choice.delta.content:
                show(token=choice.delta.content)
                return {"left": True}
    return {"left": False}


SCENARIOS: Mapping[str, Callable[[Client, str], Any]] = {
    "unary": unary,
    "stream": stream,
    "first_token": stream,
    "reasoning": stream,
    "refusal": stream,
    "stop_sequence": stop_sequence,
    "two_choices": two_choices,
    "tool_calls": tool_calls,
    "tools_two_turns": tools_two_turns,
    "structured_output": structured_output,
    "image": image,
    "large_completion": large_completion,
    "fallback": fallback,
    "retry": unary,
    "retry_stream": stream,
    "upstream_error": unary,
    "model": get_model,
    "invalid_field": invalid_field,
    "invalid_field_stream": invalid_field_stream,
    "missing_key": unary,
    "wrong_key": unary,
    "unknown_model": unary,
    "rate_limited": unary,
    "context_length": unary,
    "broken_stream": stream,
    "deadline": deadline,
    "deadline_stream": deadline_stream,
    "unreachable": unary,
    "cancel": cancel,
    "leave": leave,
}


def other_client(name: str, address: str) -> Client | None:
    """The client of a scenario that does not use the shared one."""
    if name == "unreachable":
        return Client("127.0.0.1:1", "")
    keys = {"missing_key": "", "wrong_key": "wrong"}
    return Client(address, keys[name]) if name in keys else None


def main(address: str, key: str) -> None:
    """Run the scenarios that standard input names, over one channel."""
    with Client(address, key) as shared:
        for line in sys.stdin:
            name = line.strip()
            try:
                with other_client(name, address) or nullcontext(shared) as client:
                    show(done=SCENARIOS[name](client, name))
            except ChatError as error:
                show(
                    error={
                        "code": error.code.name,
                        "reason": error.reason,
                        "param": error.param,
                        "retry_after": error.retry_after,
                    }
                )


if __name__ == "__main__":
    main(sys.argv[1], os.environ["LMCHAT_API_KEY"])
