"""Which calls are emulated, and images and files by URL; with a scripted provider and scripted downloads."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from itertools import chain
from typing import Any

import pytest
from lmchat.v1 import chat_pb2 as pb
from msgspec.structs import replace

from server.chat import openai_json
from server.chat.completion import Completion, ProtoCompletion
from server.chat.request import ChatRequest, JsonRequest, ProtoRequest
from server.chat.request import read as read_request
from server.config.model import Fetch
from server.dialects.base import Endpoint
from server.errors import InvalidRequest, LmchatError, Reason
from server.media.fetcher import Fetcher
from server.upstream.emulation.emulation import Emulation
from server.upstream.emulation.media_urls import inlined, remote_parts
from tests.routing.routing_help import run
from tests.support.fold import fold_messages
from tests.upstream.emulation_help import (
    DONE,
    FOR_EVER,
    Provider,
    Response,
    chunk,
    completion,
    endpoint,
    read,
    request,
    whole,
)

CAT = "https://pets.test/cat.png"
DOG = "https://pets.test/dogs/my%20dog.pdf?size=1#page"
PNG = "data:image/png;base64,Y2F0"
WHERE = endpoint("image_url", "file_url")


class Web:
    """Scripted downloads by URL; a number is a wait in seconds before the response."""

    def __init__(self, **more: tuple[str, bytes] | InvalidRequest | float) -> None:
        self.pages: dict[str, Any] = {
            CAT: ("image/png", b"cat"),
            DOG: ("application/pdf", b"dog"),
            "https://pets.test/page": ("text/html", b"<p>"),
            "HTTPS://PETS.test/notes.md": ("text/markdown", b"# notes"),
            "http://pets.test/cat": InvalidRequest("Only https: URLs are fetched."),
            "https://slow.test/": FOR_EVER,
        }
        self.fetched: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0

    async def __call__(self, url: str) -> tuple[str, bytes]:
        self.fetched[url] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            page = self.pages.get(url, ("image/png", url.encode()))
            await asyncio.sleep(page if isinstance(page, float) else 1.0)
            if isinstance(page, InvalidRequest):
                raise page
            assert isinstance(page, tuple)
            return page
        finally:
            self.at_once -= 1


def image(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def file(**fields: str) -> dict[str, Any]:
    return {"type": "file", "file": fields}


def asking(*parts: dict[str, Any], **fields: Any) -> pb.ChatCompletionRequest:
    question = {"type": "text", "text": "what is it?"}
    return request(messages=[{"role": "user", "content": [question, *parts]}], **fields)


def answering(web: Web) -> Provider:
    def script(body: dict[str, Any], index: int) -> Response:
        if body.get("stream"):
            return Response(chunk(role="assistant", content="a cat"), chunk("stop"), DONE)
        return whole(completion("a cat"))

    return Provider(script, web)


def sent(provider: Provider) -> list[dict[str, Any]]:
    """The content parts that the provider received, without the text."""
    (call,) = provider.calls
    parts: list[dict[str, Any]] = call["messages"][0]["content"][1:]
    return parts


@pytest.mark.parametrize(
    ("parts", "received", "fetched"),
    [
        ([image(CAT)], [image(PNG)], {CAT: 1}),
        ([image(CAT, detail="low")], [image(PNG, detail="low")], {CAT: 1}),
        ([image(PNG)], [image(PNG)], {}),
        ([image("gs://b/cat.png")], [image("gs://b/cat.png")], {}),
        ([image(CAT), image(CAT), image(PNG)], [image(PNG)] * 3, {CAT: 1}),
        (
            [file(file_data=DOG)],
            [file(file_data="data:application/pdf;base64,ZG9n", filename="my dog.pdf")],
            {DOG: 1},
        ),
        (
            [file(file_data=DOG, filename="rex.pdf"), image(CAT)],
            [file(file_data="data:application/pdf;base64,ZG9n", filename="rex.pdf"), image(PNG)],
            {DOG: 1, CAT: 1},
        ),
        (
            [file(file_id="HTTPS://PETS.test/notes.md")],
            [file(file_data="data:text/markdown;base64,IyBub3Rlcw==", filename="notes.md")],
            {"HTTPS://PETS.test/notes.md": 1},
        ),
        ([file(file_id="file-1")], [file(file_id="file-1")], {}),
        ([file(file_data=PNG, filename="cat")], [file(file_data=PNG, filename="cat")], {}),
    ],
)
def test_urls_are_fetched_and_sent_as_data(parts: Any, received: Any, fetched: dict[str, int]) -> None:
    for streamed in (False, True):
        web = Web()
        provider = answering(web)
        original = asking(*parts)
        before = original.SerializeToString()
        if streamed:
            got = fold_messages(chain.from_iterable(run(read(provider.emulation.stream(WHERE, original)))))
        else:
            got = run(provider.emulation.complete(WHERE, original, 100.0)).completion
        assert got.choices[0].message.content[0].text == "a cat"
        assert sent(provider) == received
        assert web.fetched == fetched
        assert original.SerializeToString() == before
        provider.check_closed()


@pytest.mark.parametrize(
    ("where", "fetched"),
    [
        (WHERE, [CAT, DOG]),
        (endpoint("image_url"), [CAT]),
        (endpoint("file_url"), [DOG]),
        (endpoint("n"), []),
        (endpoint(), []),
    ],
)
def test_only_what_the_endpoint_wants_as_bytes_is_fetched(where: Endpoint, fetched: list[str]) -> None:
    web = Web()
    run(answering(web).emulation.complete(where, asking(image(CAT), file(file_data=DOG)), 100.0))
    assert sorted(web.fetched) == fetched


@pytest.mark.parametrize(
    ("url", "fetched"),
    [
        ("https://www.youtube.com/watch?v=x", False),
        ("https://generativelanguage.googleapis.com/v1beta/files/x", False),
        (CAT, True),
    ],
)
def test_provider_urls_are_not_downloaded(url: str, fetched: bool) -> None:
    class Recorder:
        """An upstream that records the request."""

        async def complete(self, where: Endpoint, request: ChatRequest, limit: float) -> Completion:
            self.request = request.to_proto()
            return ProtoCompletion(pb.ChatCompletion(), "")

        def stream(self, where: Endpoint, request: ChatRequest) -> Any:
            raise AssertionError("nothing is streamed here")

    web, recorder = Web(), Recorder()
    run(
        Emulation(recorder, web).complete(
            endpoint("image_url", dialect="gemini"), ProtoRequest(asking(image(url))), 100.0
        )
    )
    assert bool(web.fetched) is fetched
    assert recorder.request.messages[0].content[1].image_url.url.startswith("data:") is fetched


def test_downloads_run_in_parallel_up_to_a_limit() -> None:
    web = Web()
    provider = answering(web)

    async def main() -> float:
        parts = [image(f"https://pets.test/{number}") for number in range(20)]
        await provider.emulation.complete(WHERE, asking(*parts), 100.0)
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(3.0)
    assert web.most_at_once == 8


@pytest.mark.parametrize(
    ("parts", "message", "param"),
    [
        (
            [image(PNG), image("http://pets.test/cat")],
            "Cannot be fetched: Only https: URLs are fetched.",
            "messages[0].content[2].image_url.url",
        ),
        (
            [image("https://pets.test/page")],
            "There is no image there, but text/html.",
            "messages[0].content[1].image_url.url",
        ),
        (
            [file(file_data="http://pets.test/cat")],
            "Cannot be fetched: Only https: URLs are fetched.",
            "messages[0].content[1].file.file_data",
        ),
        (
            [image(f"https://pets.test/{number}") for number in range(101)],
            "More than 100 URLs to fetch.",
            "messages[0].content[101].image_url.url",
        ),
    ],
)
def test_failures_name_the_part(parts: Any, message: str, param: str) -> None:
    for streamed in (False, True):
        provider = answering(Web())
        emulation = provider.emulation
        original = asking(*parts)
        with pytest.raises(InvalidRequest) as raised:
            run(
                read(emulation.stream(WHERE, original)) if streamed else emulation.complete(WHERE, original, 100.0)
            )
        assert (raised.value.message, raised.value.param) == (message, param)
        assert raised.value.reason is Reason.INVALID_REQUEST
        assert not provider.calls


def test_attempts_share_what_was_fetched() -> None:
    """Failed downloads too, and also for attempts with dropped parameters."""
    web = Web()
    there, missing = (ProtoRequest(asking(image(url), seed=1)) for url in (CAT, "http://pets.test/cat"))

    async def attempts(original: ChatRequest) -> list[ChatRequest]:
        derived = (original, original.without(["seed"]), original.with_debug(["routing"]))
        return [await inlined(one, remote_parts(WHERE, one, lambda url: False), web, 100.0) for one in derived]

    for sent in run(attempts(there)):
        assert sent.to_proto().messages[0].content[1].image_url.url == PNG
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="Cannot be fetched: Only https: URLs") as raised:
            run(attempts(missing))
        assert raised.value.param == "messages[0].content[1].image_url.url"
    assert web.fetched == {CAT: 1, "http://pets.test/cat": 1}


def test_one_failure_ends_the_other_fetches() -> None:
    web = Web()
    with pytest.raises(InvalidRequest):
        run(
            answering(web).emulation.complete(
                WHERE, asking(image("https://slow.test/"), image("http://pets.test/cat")), 100.0
            )
        )
    assert web.at_once == 0


def test_the_total_download_size_is_limited() -> None:
    web = Web()
    parts = [image(f"https://pets.test/{number}") for number in range(4)]
    web.pages |= {f"https://pets.test/{number}": ("image/png", bytes(20 << 20)) for number in range(4)}
    with pytest.raises(InvalidRequest) as raised:
        run(answering(web).emulation.complete(WHERE, asking(*parts), 100.0))
    assert raised.value.reason is Reason.REQUEST_TOO_LARGE


@pytest.mark.parametrize(("times", "too_large"), [(3, False), (4, True)])
def test_a_url_that_is_named_often_counts_each_time(times: int, too_large: bool) -> None:
    """It is fetched once, but each part gets a copy."""
    web = Web()
    web.pages["https://pets.test/large"] = ("image/png", bytes(20 << 20))
    request = ProtoRequest(asking(*[image("https://pets.test/large")] * times))
    sent = inlined(request, remote_parts(WHERE, request, lambda url: False), web, 100.0)
    if too_large:
        with pytest.raises(InvalidRequest, match="larger than 67108864 bytes together") as raised:
            run(sent)
        assert raised.value.reason is Reason.REQUEST_TOO_LARGE
    else:
        assert run(sent).size > 3 * 20 << 20
    assert web.fetched == {"https://pets.test/large": 1}


def test_downloads_count_against_the_deadline() -> None:
    provider = answering(Web())

    async def main() -> float:
        with pytest.raises(InvalidRequest) as raised:
            await provider.emulation.complete(WHERE, asking(image("https://slow.test/")), 5.0)
        assert raised.value.param == "messages[0].content[1].image_url.url"
        return asyncio.get_running_loop().time()

    assert run(main()) == pytest.approx(5.0)
    slow = Provider(lambda body, index: Response(wait=FOR_EVER), Web())

    async def called() -> float:
        with pytest.raises(LmchatError) as raised:
            await slow.emulation.complete(WHERE, asking(image(CAT)), 5.0)
        assert raised.value.reason is Reason.TIMEOUT
        return asyncio.get_running_loop().time()

    assert run(called()) == pytest.approx(5.0)


def test_everything_at_once() -> None:
    """Two choices of JSON about a picture: it is fetched once, for each call and each repair."""
    web = Web()
    provider = Provider(lambda body, index: whole(completion("no" if index < 2 else '{"a":1}')), web)
    where = endpoint("image_url", "n", "json_object")
    original = asking(image(CAT), n=2, response_format={"type": "json_object"})
    got = fold_messages(chain.from_iterable(run(read(provider.emulation.stream(where, original)))))
    assert [choice.message.content[0].text for choice in got.choices] == ['{"a":1}'] * 2
    assert web.fetched == {CAT: 1}
    assert len(provider.calls) == 4
    assert all(call["messages"][1]["content"][1] == image(PNG) for call in provider.calls)
    assert got.usage.total_tokens == 60


@pytest.mark.parametrize(
    "fields",
    [{}, {"n": 1}, {"response_format": {"type": "text"}}, {"stop": ["x"], "tools": [], "seed": 1}],
)
def test_a_request_that_needs_nothing_is_passed_on_itself(fields: dict[str, Any]) -> None:
    class Same:
        """An upstream that records its requests."""

        def __init__(self) -> None:
            self.got: list[ChatRequest] = []

        async def complete(self, where: Endpoint, request: ChatRequest, limit: float) -> Completion:
            self.got.append(request)
            return ProtoCompletion(pb.ChatCompletion(), "")

        def stream(self, where: Endpoint, request: ChatRequest) -> Any:
            self.got.append(request)

    same = Same()
    emulation = Emulation(same, Web())
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], **fields}
    requests = [ProtoRequest(request(**fields)), read_request(json.dumps(body).encode())]
    assert isinstance(requests[1], JsonRequest)
    for where in (endpoint(), endpoint("n", "json_object", "json_schema", "image_url", "file_url")):
        for sent in requests:
            run(emulation.complete(where, sent, 1.0))
            emulation.stream(where, sent)
    assert all(got is requests[index // 2 % 2] for index, got in enumerate(same.got))
    assert len(same.got) == 8


CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
OPEN = {"type": "object", "additionalProperties": {"type": "string"}}


@pytest.mark.parametrize(
    ("dialect", "model", "schema", "native"),
    [
        ("anthropic", "claude-sonnet-4-5", CLOSED, True),
        ("anthropic", "claude-sonnet-4-5", OPEN, False),
        ("anthropic", "claude-sonnet-4-5", None, False),
        ("anthropic", "claude-3-7-sonnet", CLOSED, False),
        ("anthropic", "smollm2", CLOSED, False),
        ("bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", CLOSED, True),
        ("bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", OPEN, False),
        ("bedrock", "amazon.nova-lite-v1:0", CLOSED, False),
        ("openai", "gpt", CLOSED, False),
    ],
)
def test_schemas_that_a_provider_follows_itself_are_left_to_it(
    dialect: str, model: str, schema: Any, native: bool
) -> None:
    class Recorder:
        """An upstream that records the request."""

        async def complete(self, where: Endpoint, request: ChatRequest, limit: float) -> Completion:
            self.request = request.to_proto()
            message = pb.Message(content=[pb.ContentPart(text="{}")])
            return ProtoCompletion(pb.ChatCompletion(choices=[pb.Choice(message=message)]), "")

        def stream(self, where: Endpoint, request: ChatRequest) -> Any:
            raise AssertionError("nothing is streamed here")

    recorder = Recorder()
    where = replace(endpoint("json_object", "json_schema", dialect=dialect), model=model)
    form = {"name": "answer"} | ({"schema": schema} if schema else {})
    original = request(response_format={"type": "json_schema", "json_schema": form})
    run(Emulation(recorder, Web()).complete(where, ProtoRequest(original), 1.0))
    assert recorder.request.HasField("response_format") is native


def test_the_real_fetcher() -> None:
    provider = Provider(lambda body, index: whole(completion("x")), Fetcher(Fetch()))
    with pytest.raises(InvalidRequest) as raised:
        asyncio.run(provider.emulation.complete(WHERE, asking(image("https://127.0.0.1/cat")), 5.0))
    assert raised.value.message == "Cannot be fetched: The host cannot be reached on the public internet."
    assert json.dumps(openai_json.dump(asking(image(CAT))))
