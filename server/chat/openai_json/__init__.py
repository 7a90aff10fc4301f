"""OpenAI's chat-completions JSON, both ways; used by the REST door and by the OpenAI dialect."""

from server.chat.openai_json.events import EventWriter
from server.chat.openai_json.fields import decode as decode_json
from server.chat.openai_json.fields import encode_text
from server.chat.openai_json.legacy import rewrite as rewrite_legacy
from server.chat.openai_json.options import dump_options
from server.chat.openai_json.plain import PlainCompletion
from server.chat.openai_json.plain import read as read_plain
from server.chat.openai_json.plain_request import ChatRequest, PlainRequest, include_usage
from server.chat.openai_json.plain_request import read as read_plain_request
from server.chat.openai_json.request import Parsed, dump, parse, typed
from server.chat.openai_json.response import dump_chunk, dump_completion, parse_chunk, parse_completion

__all__ = [
    "ChatRequest",
    "EventWriter",
    "Parsed",
    "PlainCompletion",
    "PlainRequest",
    "decode_json",
    "dump",
    "dump_chunk",
    "dump_completion",
    "dump_options",
    "encode_text",
    "include_usage",
    "parse",
    "parse_chunk",
    "parse_completion",
    "read_plain",
    "read_plain_request",
    "rewrite_legacy",
    "typed",
]
