"""Images and files that public reports say are refused: labels that are wrong or missing, PDFs as images."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.support.dialects import endpoint_for, request_for

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(24)).decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(24)).decode()
GIF = base64.b64encode(b"GIF89a" + bytes(24)).decode()
WEBP = base64.b64encode(b"RIFF\x10\0\0\0WEBPVP8 " + bytes(24)).decode()
PDF = base64.b64encode(b"%PDF-1.7\n%%EOF").decode()
TEXT = base64.b64encode(b"# Title").decode()
UNKNOWN = base64.b64encode(b"no signature").decode()

VENDORS = {
    "anthropic": "claude-sonnet-4-5",
    "bedrock": "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "gemini": "gemini-3-flash-preview",
}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def file(data: str, name: str = "") -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data, **({"filename": name} if name else {})}}


def sent(vendor: str, part: dict[str, Any], *, in_result: bool = False) -> dict[str, Any]:
    """The vendor's block for `part`, in a user's turn or in a tool's result."""
    turns: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "See:"}, part]}]
    if in_result:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        result = {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "See:"}, part]}
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}, result]
    body = request_for({"model": "public-model", "messages": turns}, endpoint_for(vendor, VENDORS[vendor]))
    last = json.loads(body.request.body)["contents" if vendor == "gemini" else "messages"][-1]
    blocks: Any = last["parts" if vendor == "gemini" else "content"]
    if in_result and vendor == "gemini":  # which takes some images inside the result, the others beside it
        blocks = [None, *blocks[0]["functionResponse"].get("parts", blocks[1:])]
    elif in_result:
        blocks = blocks[0]["content"] if vendor == "anthropic" else blocks[0]["toolResult"]["content"]
    found: dict[str, Any] = blocks[1]
    return found


def media_type(vendor: str, block: dict[str, Any]) -> str:
    """The media type, or Bedrock's name of the format."""
    if vendor == "anthropic":
        return str(block["source"]["media_type"])
    if vendor == "gemini":
        return str(block["inlineData"]["mimeType"])
    [(_, inner)] = block.items()
    return str(inner["format"])


#: "The image was specified using the image/png media type, but the image appears to be a image/jpeg image".
#: https://github.com/BerriAI/litellm/issues/24900 https://github.com/1jehuang/jcode/issues/465
#: https://github.com/dust-tt/dust/pull/26545
LABELS = [
    ("image/png", JPEG, "image/jpeg"),
    ("image/jpeg", PNG, "image/png"),
    ("image/jpg", WEBP, "image/webp"),
    ("image/webp", GIF, "image/gif"),
    ("application/octet-stream", PNG, "image/png"),
    ("", PNG, "image/png"),
    ("image/png", UNKNOWN, "image/png"),
]


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(("label", "data", "expected"), LABELS)
@pytest.mark.parametrize("in_result", [False, True])
def test_the_bytes_of_an_image_count(vendor: str, label: str, data: str, expected: str, in_result: bool) -> None:
    block = sent(vendor, image(f"data:{label};base64,{data}"), in_result=in_result)
    assert media_type(vendor, block) == (expected.partition("/")[2] if vendor == "bedrock" else expected)


@pytest.mark.parametrize(
    ("vendor", "expected"), [("anthropic", "application/pdf"), ("bedrock", "pdf"), ("gemini", "application/pdf")]
)
@pytest.mark.parametrize(
    "part",
    [
        # https://github.com/BerriAI/litellm/pull/39977
        image(f"data:application/pdf;base64,{PDF}"),
        image(f"data:image/png;base64,{PDF}"),
        file(f"data:application/pdf;base64,{PDF}", "a.pdf"),
        file(f"data:application/octet-stream;base64,{PDF}", "a.pdf"),
        # OpenAI's reference: "The base64 encoded file data".
        # https://platform.openai.com/docs/api-reference/chat/create
        file(PDF, "a.pdf"),
        file(PDF),
    ],
)
def test_a_pdf_is_a_document(vendor: str, expected: str, part: dict[str, Any]) -> None:
    block = sent(vendor, part)
    assert media_type(vendor, block) == expected
    assert PDF in json.dumps(block)
    if vendor == "anthropic":
        assert block["type"] == "document"
    elif vendor == "bedrock":
        assert "document" in block


@pytest.mark.parametrize("label", ["data:application/octet-stream;base64,", "data:;base64,", ""])
@pytest.mark.parametrize("name", ["notes.md", "table.csv", "data.json", "page.html"])
def test_a_text_file_without_a_type_is_read_by_its_name(label: str, name: str) -> None:
    source = sent("anthropic", file(label + TEXT, name))["source"]
    assert source == {"type": "text", "media_type": "text/plain", "data": "# Title"}
    expected = {"notes.md": "md", "table.csv": "csv", "data.json": "txt", "page.html": "html"}[name]
    assert media_type("bedrock", sent("bedrock", file(label + TEXT, name))) == expected
    assert media_type("gemini", sent("gemini", file(label + TEXT, name))).startswith(("text/", "application/json"))
