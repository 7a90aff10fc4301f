"""Parses and writes OpenAI's chat-completions JSON; used by the REST API and by the OpenAI dialect."""

from server.chat.openai_json.events import EventWriter
from server.chat.openai_json.fields import at, encode_text, load
from server.chat.openai_json.fields import decode as decode_json
from server.chat.openai_json.legacy import rewrite as rewrite_legacy
from server.chat.openai_json.options import dump_options
from server.chat.openai_json.request import Parsed, dump, parse, parse_object
from server.chat.openai_json.response import dump_chunk, dump_completion, parse_chunk, parse_completion

__all__ = [
    "EventWriter",
    "Parsed",
    "at",
    "decode_json",
    "dump",
    "dump_chunk",
    "dump_completion",
    "dump_options",
    "encode_text",
    "load",
    "parse",
    "parse_chunk",
    "parse_completion",
    "parse_object",
    "rewrite_legacy",
]
