"""Names, ids and arguments of tool calls that a provider would refuse, rewritten for it."""

from __future__ import annotations

import hashlib
import re
import string
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from lmchat.v1 import chat_pb2 as pb

from server.chat.openai_json.fields import decode
from server.chat.openai_json.surrogates import with_whole_pairs

#: The limit of Bedrock and of most others; Anthropic documents none for ids.
MAX_LENGTH = 64
_DIGEST_LENGTH = 8


def fit(text: str, forbidden: re.Pattern[str], length: int = MAX_LENGTH) -> str:
    """`text` where it is not empty, holds nothing `forbidden` and has at most `length` characters.

    Otherwise a similar text that ends in a digest of `text`: the same in every request, so that calls and results
    match and prompts can be cached, and different for different texts. `forbidden` matches single characters, `_`
    and hexadecimal digits not among them.
    """
    fitted = forbidden.sub("_", text)
    if fitted == text and 0 < len(text) <= length:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{fitted[: length - _DIGEST_LENGTH - 1]}_{digest}"


#: What OpenAI and other vendors of its dialect refuse in the names of tools.
#: https://platform.openai.com/docs/api-reference/chat/create
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")


class FittedNames:
    """Names of tools, rewritten where the provider would refuse them; the same in every request.

    `originals`: rewritten name -> the caller's.
    """

    def __init__(self) -> None:
        self.originals: dict[str, str] = {}

    def fit(self, holder: Any) -> None:
        """Rewrite the `name` of an object of the request, in place; anything else is left as it is."""
        name = holder.get("name") if isinstance(holder, dict) else None
        if isinstance(name, str):
            fitted = fit(name, _NOT_IN_NAMES)
            if fitted != name:
                holder["name"] = fitted
                self.originals[fitted] = name


_ALPHANUMERIC = string.digits + string.ascii_letters


def exact(text: str, length: int) -> str:
    """`text` where it is exactly `length` ASCII letters and digits, else a digest of it that is."""
    if len(text) == length and text.isascii() and text.isalnum():
        return text
    number = int.from_bytes(hashlib.sha256(text.encode()).digest())
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHANUMERIC))
        digits.append(_ALPHANUMERIC[digit])
    return "".join(digits)


def _decoded(text: str) -> Any:
    try:
        return decode(text)
    except msgspec.DecodeError:
        return decode(with_whole_pairs(text))


def tool_input(arguments: str, otherwise: str, *, as_text: bool = False) -> dict[str, Any]:
    """A call's arguments as the object that they must be; blank ones and `null` are an empty object.

    Anything else, such as text that a token limit cut off, is the value of `otherwise`; with `as_text` JSON too
    is kept as text. Half a character is U+FFFD.
    """
    try:
        value = _decoded(arguments) if arguments.strip() else None
    except msgspec.DecodeError:
        value = arguments
    if value is None:
        return {}
    return value if isinstance(value, dict) else {otherwise: arguments if as_text else value}


# Names


def called_name(call: pb.ToolCall) -> str:
    """The name in a call, of whichever kind it is."""
    return call.custom.name if call.HasField("custom") else call.function.name


def renamed(request: pb.ChatCompletionRequest, fitted: Callable[[str], str]) -> dict[str, str]:
    """The provider's name -> the caller's, for the tools of `request` whose names are rewritten by `fitted`."""
    names = [tool.function.name for tool in request.tools if tool.HasField("function")]
    names += [called_name(call) for message in request.messages for call in message.tool_calls]
    return {new: name for name in names if (new := fitted(name)) != name}


# Ids


def call_id(answer_id: str, index: int) -> str:
    """The id of a call that has none, or that of another: as unique as that of its answer, which may be empty."""
    return "_".join(filter(None, ("call", answer_id.removeprefix("chatcmpl-"), str(index))))


class CallIds:
    """The ids of the calls and results of one conversation, rewritten by `fitted`.

    Each call gets its own id: some providers begin each answer with `call_0`, or give all calls of an answer the
    same id, and Anthropic, Bedrock and Mistral refuse a conversation in which an id occurs twice.
    https://github.com/NVIDIA-NeMo/Switchyard/issues/502
    https://github.com/vectorize-io/hindsight/pull/4250
    """

    def __init__(self, fitted: Callable[[str], str]) -> None:
        self._fitted = fitted
        self._taken: set[str] = set()
        #: The caller's id -> the ids of the last turn's calls with it that have no result yet.
        self._open: dict[str, deque[str]] = {}
        #: The caller's id -> the id of the last call with it.
        self._last: dict[str, str] = {}
        self._repeated: dict[str, int] = {}

    def calls(self, ids: Sequence[str]) -> list[str]:
        """The ids of the calls of one turn, in order. Results that follow are those of this turn."""
        if ids:
            self._open.clear()
        return [self._call(id_) for id_ in ids]

    def _call(self, id_: str) -> str:
        fitted = self._fitted(id_)
        while fitted in self._taken:
            count = self._repeated[id_] = self._repeated.get(id_, 0) + 1
            fitted = self._fitted(f"{id_}:{count}")
        self._taken.add(fitted)
        self._last[id_] = fitted
        self._open.setdefault(id_, deque()).append(fitted)
        return fitted

    def result(self, id_: str) -> str:
        """The id of the call that the next result with `id_` is of."""
        waiting = self._open.get(id_)
        return waiting.popleft() if waiting else self._last.get(id_) or self._fitted(id_)
