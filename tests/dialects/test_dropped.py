"""The paths of dropped fields, and the helpers that the dialects share to collect them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json import encode_text
from server.dialects.dropped import Dropped
from server.dialects.tool_choice import AllowedTools, allowed_tools, drop_extras
from server.errors import InvalidRequest, Reason


def test_each_path_once_and_none_that_is_part_of_another() -> None:
    dropped = Dropped()
    for path in ("messages[0].name", "tools[0].function.strict", "tools", "messages[0].name", "toolsets", "top_p"):
        dropped.add(path)
    assert dropped.paths == ("messages[0].name", "tools", "toolsets", "top_p")


def test_fields_that_are_read_and_fields_that_are_not() -> None:
    dropped = Dropped()
    assert dropped.pick("tools[0]", '{"a": 1, "b": 2, "c": null}', ("a",)) == {"a": 1}
    assert dropped.pick("", '{"d": 1}') == {}
    assert dropped.pick("tools[1]", "") == dropped.pick("tools[1]", "[1]") == {}
    assert dropped.paths == ("tools[0].b", "d")


def test_the_last_of_several_objects_wins() -> None:
    dropped = Dropped()
    merged = dropped.merge(("a", "b"), ("x", '{"a": 1, "b": 2}'), ("y", '{"a": 3, "b": null}'))
    assert (merged, dropped.paths) == ({"a": 3, "b": 2}, ("x.a",))


def test_text_that_is_not_json() -> None:
    with pytest.raises(msgspec.DecodeError):
        Dropped().pick("x", "{")


@pytest.mark.parametrize(
    ("message", "paths"),
    [
        (pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="a")], name="ada"), ()),
        (pb.Message(role=pb.ROLE_SYSTEM, content=[pb.ContentPart(text="a")], name="ops"), ("m.name",)),
        (pb.Message(role=pb.ROLE_USER, refusal="no", tool_call_id="1"), ("m.refusal", "m.tool_call_id")),
        (pb.Message(role=pb.ROLE_ASSISTANT, refusal="no", annotations=[pb.Annotation()]), ("m.annotations",)),
        (pb.Message(role=pb.ROLE_TOOL, tool_call_id="1", reasoning_content="x"), ("m.reasoning_content",)),
    ],
)
def test_fields_that_mean_nothing_for_a_role(message: pb.Message, paths: tuple[str, ...]) -> None:
    dropped = Dropped()
    dropped.message(message, "m")
    assert dropped.paths == paths


# tool_choice


def choice(**fields: Any) -> pb.ToolChoice:
    return pb.ToolChoice(other_json=encode_text({"type": "allowed_tools", **fields}))


def function(name: str, **odd: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **odd}}


@pytest.mark.parametrize(("mode", "required"), [("auto", False), ("required", True)])
def test_allowed_tools(mode: str, *, required: bool) -> None:
    tools = [function("f", odd=1), {**function("g"), "odd": 1}]
    dropped = Dropped()
    allowed = allowed_tools(choice(allowed_tools={"mode": mode, "tools": tools, "odd": 1}, odd=1), dropped)
    assert allowed == AllowedTools(("f", "g"), required)
    path = "tool_choice.allowed_tools"
    assert set(dropped.paths) == {
        "tool_choice.odd", f"{path}.odd", f"{path}.tools[0].function.odd", f"{path}.tools[1].odd"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tool_choice", "param"),
    [
        (choice(), "tool_choice.type"),
        (choice(allowed_tools={"mode": "odd", "tools": []}), "tool_choice.type"),
        (
            choice(allowed_tools={"mode": "auto", "tools": [{"type": "custom"}]}),
            "tool_choice.allowed_tools.tools[0]",
        ),
        (pb.ToolChoice(other_json='{"type":"custom"}'), "tool_choice.type"),
    ],
)
def test_choices_of_another_kind(tool_choice: pb.ToolChoice, param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        allowed_tools(tool_choice, Dropped())
    assert (raised.value.param, raised.value.reason) == (param, Reason.UNSUPPORTED_FEATURE)


def test_choices_that_the_contract_knows() -> None:
    named = pb.ToolChoice(function_name="f", extra_json='{"function": {"odd": 1}, "other": 2}')
    dropped = Dropped()
    assert allowed_tools(named, dropped) is None
    drop_extras(named, dropped)
    assert dropped.paths == ("tool_choice.other", "tool_choice.function.odd")
