"""The log of a process: lines on stderr without secrets, each begun by the process itself.

Providers and callers write parts of log messages. Line breaks, terminal escapes and marks that reorder text are
shown as escapes; the lines of a traceback are indented.
"""

from __future__ import annotations

import logging
import re
import sys

from server.config.redaction import Redactor

FORMAT = "%(levelname)s %(name)s: %(message)s"
#: Characters of one message, and of one traceback.
MAX_CHARS = 8_000
#: Characters beyond a limit that are searched for secrets: one that crosses the limit is found whole.
_REDACTION_MARGIN = 4_096
#: Controls (C0 but the tab, DEL, C1), line and paragraph separators, marks of direction, lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]").sub


class LineFormatter(logging.Formatter):
    """Formats one record as one line, a traceback as indented lines after it."""

    def __init__(self, redact: Redactor | None = None) -> None:
        super().__init__(FORMAT)
        self.redact = redact or Redactor()

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        text = super().formatMessage(record)[: MAX_CHARS + _REDACTION_MARGIN]
        return one_line(self.redact(text)[:MAX_CHARS])

    def formatException(self, ei: object) -> str:
        """The lines of a traceback; the last ones where they are many."""
        text = super().formatException(ei)[-MAX_CHARS - _REDACTION_MARGIN :]  # type: ignore[arg-type]
        text = self.redact(text)[-MAX_CHARS:]
        return "\n".join(f"    {one_line(line)}" for line in text.split("\n"))

    def formatStack(self, stack_info: str) -> str:
        """The lines of a stack."""
        return "\n".join(f"    {one_line(line)}" for line in self.redact(stack_info).split("\n"))


def install(level: int = logging.INFO) -> None:
    """Log to stderr from now on; `redact` adds what must not be shown once the configuration is read."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    # gRPC logs whole metadata values that are not UTF-8, which may be somebody's key.
    logging.getLogger("grpc._cython.cygrpc").addFilter(_without_values)


def redact(redactor: Redactor) -> None:
    """Take the secrets of `redactor` out of every line that `install` has set up."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, LineFormatter):
            handler.formatter.redact = redactor


def _without_values(record: logging.LogRecord) -> bool:
    """Let a record pass, without the metadata value and the traceback (which has it too) of a wrong encoding."""
    if str(record.msg).startswith("Invalid encoding"):
        record.msg, record.args, record.exc_info = "a caller's metadata is not UTF-8", (), None
    return True


def one_line(text: str) -> str:
    """`text` with escapes in place of line breaks, controls and marks that reorder text."""
    return _UNSAFE(lambda match: match[0].encode("unicode_escape").decode(), text)
