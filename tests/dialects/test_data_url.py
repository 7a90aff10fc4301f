"""data: URLs, by a table and against Python's own base64."""

from __future__ import annotations

import base64
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.dialects import data_url
from server.errors import InvalidRequest, Reason


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("data:image/png;base64,AAAA", ("image/png", "AAAA")),
        ("DATA:image/png;BASE64,AAAA", ("image/png", "AAAA")),
        ("Data:IMAGE/PNG; Base64 ,AAAA", ("image/png", "AAAA")),
        ("data:image/jpg;base64,AAAA", ("image/jpeg", "AAAA")),
        ("data:image/JPG;base64,AAAA", ("image/jpeg", "AAAA")),
        ("data:text/plain;charset=utf-8;base64,aGk=", ("text/plain", "aGk=")),
        ("data:application/pdf;name=a.pdf;base64;x=y,aGk=", ("application/pdf", "aGk=")),
        ("data: image/png ;base64,AAAA", ("image/png", "AAAA")),
        ("data:;base64,AAAA", ("", "AAAA")),
        ("data:image/png;base64,AA\r\nAA AA\tAA\n", ("image/png", "AAAAAAAA")),
        ("data:image/png;base64,AA%0AAA%2b%2F", ("image/png", "AAAA+/==")),
        ("data:image/png;base64,aGk%3D", ("image/png", "aGk=")),
        ("data:image/png;base64,aGk", ("image/png", "aGk=")),  # without padding
        ("data:text/plain,hi", ("text/plain", "aGk=")),
        ("data:,hi", ("", "aGk=")),
        ("data:text/plain,a%2C%20b,+c", ("text/plain", base64.b64encode(b"a, b,+c").decode())),
        ("data:text/plain,é%C3%A9", ("text/plain", base64.b64encode("éé".encode()).decode())),
        ("data:text/plain, a ", ("text/plain", base64.b64encode(b" a ").decode())),
        ("data:text/plain,100%", ("text/plain", base64.b64encode(b"100%").decode())),
    ],
)
def test_parse(url: str, expected: tuple[str, str]) -> None:
    assert data_url.is_data_url(url)
    assert data_url.parse(url, "p") == expected


@pytest.mark.parametrize("url", ["", "dat", "data", "https://x/data:image/png", "s3://b/k", " data:,x", "AAAA"])
def test_other_urls(url: str) -> None:
    assert not data_url.is_data_url(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:", "needs a comma"),
        ("data:image/png;base64", "needs a comma"),
        ("data:image/png;base64,", "must not be empty"),
        ("data:image/png;base64, \n", "must not be empty"),
        ("data:text/plain,", "must not be empty"),
        ("data:image/png;base64,A*AA", "not valid base64"),
        ("data:image/png;base64,A", "not valid base64"),
        ("data:image/png;base64,AAAAA", "not valid base64"),
        ("data:image/png;base64,AA==AAAA", "not valid base64"),
        ("data:image/png;base64,AA=====", "not valid base64"),
        ("data:image/png;base64,=AAA", "not valid base64"),
        ("data:image/png;base64,a-b_", "not valid base64"),  # the URL-safe alphabet is another encoding
        ("data:image/png;base64,é", "not valid base64"),
        ("data:image/png;base64,%C3%A9", "not valid base64"),
        ("data:image/png;base64,AAAA,AAAA", "not valid base64"),
    ],
)
def test_refused(url: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        data_url.parse(url, "some.path")
    assert (caught.value.param, caught.value.reason) == ("some.path", Reason.INVALID_REQUEST)


@given(st.binary(min_size=1), st.booleans(), st.lists(st.integers(0, 400), max_size=9))
def test_every_spelling_means_the_same(data: bytes, padded: bool, breaks: list[int]) -> None:
    """Base64 with or without padding, with line breaks, percent-encoded, and data that is not base64 at all."""
    canonical = base64.b64encode(data).decode()
    spelled = canonical if padded else canonical.rstrip("=")
    for place in breaks:
        cut = place % (len(spelled) + 1)
        spelled = f"{spelled[:cut]}\n{spelled[cut:]}"
    urls = [
        f"data:a/b;base64,{spelled}",
        f"DATA:A/B;x=y;BASE64,{quote_from_bytes(spelled.encode(), safe='')}",
        f"data:a/b,{quote_from_bytes(data)}",
    ]
    assert [data_url.parse(url, "p") for url in urls] == [("a/b", canonical)] * 3


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for url in (f"data:{text}", f"data:,{text}", f"data:;base64,{text}"):
        try:
            _, data = data_url.parse(url, "p")
        except InvalidRequest:
            continue
        assert base64.b64encode(base64.b64decode(data, validate=True)).decode()[:-3] == data[:-3]
