"""Names and ids that are rewritten for a provider, and the names of participants."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lmchat.v1 import chat_pb2 as pb

from server.dialects.dropped import Dropped
from server.dialects.participants import named_content
from server.dialects.tool_ids import MAX_LENGTH, fit

FORBIDDEN = re.compile(r"[^a-zA-Z0-9_-]")


@pytest.mark.parametrize("text", ["a", "call_1", "toolu_01A-b", "x" * MAX_LENGTH])
def test_what_fits_stays(text: str) -> None:
    assert fit(text, FORBIDDEN) == text


@pytest.mark.parametrize(
    "texts",
    [
        ("a.b:0", "a_b_0", "a:b.0", "a b 0"),
        ("functions.read:0", "functions.read:1", "functions_read_0"),
        ("x" * 64, "x" * 65, "x" * 66, "x" * 64 + "y"),
        ("", " ", "_", "  "),
        ("é", "è", "_"),
    ],
)
def test_different_texts_stay_different(texts: tuple[str, ...]) -> None:
    fitted = [fit(text, FORBIDDEN) for text in texts]
    assert len(set(fitted)) == len(texts)
    assert fitted == [fit(text, FORBIDDEN) for text in texts]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", text) for text in fitted)


_IDS = st.text(st.sampled_from("ab._:"), max_size=70)


@given(st.lists(_IDS, unique=True))
def test_ids_of_one_conversation_stay_apart(ids: list[str]) -> None:
    fitted = {fit(id_, FORBIDDEN) for id_ in ids}
    assert len(fitted) == len(ids)
    assert {fit(id_, FORBIDDEN) for id_ in fitted} == fitted


def user(*texts: str, name: str = "ada", role: pb.Role.ValueType = pb.ROLE_USER) -> pb.Message:
    return pb.Message(role=role, name=name, content=[pb.ContentPart(text=text) for text in texts])


@pytest.mark.parametrize(
    ("message", "texts"),
    [
        (user("hi", "there"), ["ada: hi", "there"]),
        (user(" ", "hi"), [" ", "ada: hi"]),
        (user("hi", name=""), ["hi"]),
        (user(), []),
        (user(" "), [" "]),
        (user("hi", role=pb.ROLE_ASSISTANT), ["hi"]),
        (user("hi", role=pb.ROLE_TOOL), ["hi"]),
    ],
)
def test_names_of_users(message: pb.Message, texts: list[str]) -> None:
    before = message.SerializeToString()
    assert [part.text for part in named_content(message, "messages[0]", Dropped())] == texts
    assert message.SerializeToString() == before


def test_name_of_a_user_who_sends_an_image() -> None:
    message = user()
    message.content.add().image_url.url = "data:,x"
    image, name = named_content(message, "messages[0]", Dropped())
    assert (image.image_url.url, name.text) == ("data:,x", "(from ada)")


def test_further_fields_of_the_named_part_stay() -> None:
    message = user("hi")
    message.content[0].extra_json = '{"cache_control":{}}'
    (part,) = named_content(message, "messages[0]", Dropped())
    assert (part.text, part.extra_json) == ("ada: hi", '{"cache_control":{}}')
