"""Requests to Gemini: schemas, media and turns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat import openai_json
from server.dialects.dropped import Dropped
from server.dialects.gemini import request as gemini_request
from server.dialects.gemini.schema import MAX_COPIED, adapt, parameters
from server.errors import InvalidRequest
from tests.dialects.gemini_help import endpoint
from tests.dialects.steps import assert_linear


def parsed(*messages: Any, **fields: Any) -> pb.ChatCompletionRequest:
    return openai_json.parse(json.dumps({"model": "m", "messages": messages, **fields}).encode()).request


def body(request: pb.ChatCompletionRequest, model: str = "gemini-3-pro", vendor: str = "gemini") -> dict[str, Any]:
    return gemini_request.body(request, endpoint(model, vendor), Dropped())


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


# Schemas

STRING: dict[str, Any] = {"type": "string"}


def ref(name: str, **beside: Any) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}", **beside}


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def with_defs(schema: dict[str, Any], **definitions: Any) -> dict[str, Any]:
    return {**schema, "$defs": definitions}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (with_defs(an_object(a=ref("S")), S=STRING), with_defs(an_object(a=ref("S")), S=STRING)),
        (
            with_defs(an_object(a=ref("S", description="d")), S=STRING),
            with_defs(an_object(a={**STRING, "description": "d"}), S=STRING),
        ),
        (  # within a copy references stay, without what stands beside them
            with_defs(an_object(a=ref("A", title="t")), A=an_object(b=ref("S", title="u")), S=STRING),
            with_defs(
                an_object(a={**an_object(b=ref("S")), "title": "t"}),
                A=an_object(b={**STRING, "title": "u"}),
                S=STRING,
            ),
        ),
        (  # a reference to a reference
            with_defs(an_object(a=ref("A", title="t")), A=ref("S"), S=STRING),
            with_defs(an_object(a={**STRING, "title": "t"}), A=ref("S"), S=STRING),
        ),
        (  # to itself, and to nothing
            with_defs(an_object(a=ref("A", title="t"), b=ref("missing", title="u")), A=ref("A")),
            with_defs(an_object(a=ref("A"), b=ref("missing")), A=ref("A")),
        ),
        (with_defs(ref("O"), O=an_object(a=STRING)), with_defs(an_object(a=STRING), O=an_object(a=STRING))),
        (with_defs(ref("O"), O=ref("O")), with_defs(ref("O"), O=ref("O"))),
        (an_object(a={"allOf": [STRING], "title": "t"}), an_object(a={**STRING, "title": "t"})),
        (
            {**an_object(a={"$ref": "#/definitions/S"}), "definitions": {"S": STRING}},
            with_defs(an_object(a=ref("S")), S=STRING),
        ),
    ],
)
def test_references(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    before = repr(schema)
    assert adapt(schema) == expected
    assert repr(schema) == before


def size(value: Any) -> int:
    return len(openai_json.encode_text(value))


@pytest.mark.parametrize("links", [10, 100, 400])
def test_chains_do_not_double(links: int) -> None:
    """Every definition refers twice to the next, with a description."""
    definitions = {
        f"D{i}": an_object(**{key: ref(f"D{i + 1}", description="d") for key in "ab"}) for i in range(links)
    }
    schema = with_defs(an_object(a=ref("D0", description="d")), **definitions, **{f"D{links}": STRING})
    assert size(parameters(schema)) < 4 * size(schema)


def test_copies_are_bounded() -> None:
    """A large definition that is referred to often: it is copied up to a limit."""
    large = an_object(**{f"p{i}": STRING for i in range(500)})
    schema = with_defs(an_object(**{f"a{i}": ref("L", description="d") for i in range(1_000)}), L=large)
    assert size(schema) + 30_000 < size(adapt(schema)) < size(schema) + MAX_COPIED
    properties = adapt(schema)["properties"]
    assert properties["a0"] == {**large, "description": "d"}
    assert properties["a999"] == ref("L")


def test_references_take_linear_time() -> None:
    def referring(count: int) -> dict[str, Any]:
        definitions = {f"D{i}": ref(f"D{i + 1}") for i in range(count)}
        properties = {f"a{i}": ref(f"D{i}", description="d") for i in range(count)}
        return with_defs(an_object(**properties), **definitions, **{f"D{count}": STRING})

    assert_linear(referring, adapt)


def test_references_to_nowhere_take_linear_time() -> None:
    """Each leads through the same large definition to a missing one: nothing is copied."""

    def referring(count: int) -> dict[str, Any]:
        large = {**{f"k{i}": 1 for i in range(count)}, "$ref": "#/$defs/none"}
        return with_defs(an_object(**{f"a{i}": ref("L", description="d") for i in range(count)}), L=large)

    assert_linear(referring, adapt, 10_000)


def test_schema_that_nests_too_deeply() -> None:
    schema = STRING
    for _ in range(5_000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        adapt(schema)


# Media


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("part", "blob"),
    [
        (image("data:image/jpg;base64,AAAA"), {"mimeType": "image/jpeg", "data": "AAAA"}),
        (image("DATA:image/PNG;BASE64,AA\nAA"), {"mimeType": "image/png", "data": "AAAA"}),
        (image("data:image/svg+xml,%3Csvg/%3E"), {"mimeType": "image/svg+xml", "data": "PHN2Zy8+"}),
        (
            {
                "type": "file",
                "file": {"filename": "a.pdf", "file_data": "data:application/octet-stream;base64,AAAA"},
            },
            {"mimeType": "application/pdf", "data": "AAAA"},
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:;base64,AAAA"}},
            {"mimeType": "application/pdf", "data": "AAAA"},
        ),
    ],
)
def test_inline_media(part: dict[str, Any], blob: dict[str, str]) -> None:
    (turn,) = body(parsed({"role": "user", "content": [part]}))["contents"]
    assert turn["parts"] == [{"inlineData": blob}]


@pytest.mark.parametrize("url", ["data:image/png;base64,A*AA", "data:image/png", "data:image/png;base64,"])
def test_data_urls_without_data(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        body(parsed({"role": "user", "content": [image(url)]}))
    assert caught.value.param == "messages[0].content[0].image_url.url"


@pytest.mark.parametrize("url", ["https://[", "https://a]/b.png", "https://[x]/b.png"])
def test_urls_with_stray_brackets_have_no_extension(url: str) -> None:
    with pytest.raises(InvalidRequest, match="media type") as caught:
        body(parsed({"role": "user", "content": [image(url)]}))
    assert caught.value.param == "messages[0].content[0].image_url.url"


# Turns


def call(id_: str, name: str) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": "{}"}}


def result(id_: str, content: Any = "r") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id_, "content": content}


def test_results_of_several_turns_keep_the_order_of_their_calls() -> None:
    """Vertex AI has no ids: turns of calls that follow each other are one, and so are their results."""
    turns = [{"role": "assistant", "tool_calls": [call(a, a), call(b, b)]} for a, b in ("fg", "hi")]
    request = parsed({"role": "user", "content": "Hi"}, *turns, *map(result, "ihgf"))
    _, answer, results = body(request, vendor="vertex")["contents"]
    assert [part["functionCall"]["name"] for part in answer["parts"]] == list("fghi")
    assert [part["functionResponse"]["name"] for part in results["parts"]] == list("fghi")


@pytest.mark.parametrize(
    ("model", "inside", "after"),
    [("gemini-3-pro", ["png", "png"], ["gif"]), ("gemini-2.5-pro", [], ["png", "gif", "png"])],
)
def test_media_of_results(model: str, inside: list[str], after: list[str]) -> None:
    """Those that a response can hold are in it, the same image twice as well; others come after all results."""
    png, gif = image("data:image/png;base64,AAAA"), image("data:image/gif;base64,AAAA")
    request = parsed(
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [call("a", "f")]},
        result("a", [{"type": "text", "text": "r"}, png, gif, png]),
    )
    response, *media = body(request, model)["contents"][2]["parts"]
    held = response["functionResponse"].get("parts", [])
    for parts, types in ((held, inside), (media, after)):
        assert [part["inlineData"]["mimeType"] for part in parts] == [f"image/{type_}" for type_ in types]


def test_turns_take_linear_time() -> None:
    def conversation(count: int) -> pb.ChatCompletionRequest:
        ids = [str(number) for number in range(count)]
        images = [image("data:image/png;base64,AAAA")] * count
        return parsed(
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "tool_calls": [call(id_, "f") for id_ in ids]},
            *(result(id_) for id_ in reversed(ids)),
            result("0", images),
        )

    assert_linear(conversation, body)


def test_names_of_users() -> None:
    turns = [{"role": "user", "name": name, "content": "hi"} for name in ("buyer", "seller")]
    assert body(parsed(*turns))["contents"] == [
        {"role": "user", "parts": [{"text": "buyer: hi"}, {"text": "seller: hi"}]}
    ]


# JSON mode


@pytest.mark.parametrize(
    ("model", "fields", "native"),
    [
        ("gemini-2.5-flash", {}, True),
        ("gemini-2.5-flash", {"tools": [TOOL]}, False),
        ("models/gemini-2.5-flash", {"web_search_options": {}}, False),
        ("gemini-3-pro", {"tools": [TOOL]}, True),
    ],
)
@pytest.mark.parametrize("format_", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {}}])
def test_json_mode_beside_tools(model: str, fields: dict[str, Any], native: bool, format_: dict[str, Any]) -> None:
    request = parsed({"role": "user", "content": "Hi"}, response_format=format_, **fields)
    assert gemini_request.native_format(request, model) is native
    if not native:
        with pytest.raises(InvalidRequest, match="no JSON mode beside tools"):
            body(request, model)


def test_formats_that_only_some_servers_have() -> None:
    request = parsed({"role": "user", "content": "Hi"}, response_format={"type": "grammar", "grammar": "x"})
    assert not gemini_request.native_format(request, "gemini-3-pro")
