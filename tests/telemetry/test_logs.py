"""Lines of the log: one for each record, without secrets, whatever the origin of the text."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from server.config.redaction import Redactor
from server.telemetry import logs
from server.telemetry.logs import LineFormatter

FORMATTER = LineFormatter(Redactor(["sk-secret-0123"]))


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    trace = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("lmchat.rpc", logging.WARNING, __file__, 1, message, args, trace)


#: What a provider wrote, and what the log has.
TABLE = [
    ("plain\ttext, 输 😀", "plain\ttext, 输 😀"),
    ("a\nERROR lmchat: forged", r"a\nERROR lmchat: forged"),
    ("a\r\nb", r"a\r\nb"),
    ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
    ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
    ("a\u2028b\u2029c\x85d\x0be\x0cf", r"a\u2028b\u2029c\x85d\x0be\x0cf"),
    ("\u202eevil\u2066", r"\u202eevil\u2066"),
    ("\ud800", r"\ud800"),
    ("Bearer sk-secret-0123", "Bearer ***"),
]


@pytest.mark.parametrize(("text", "shown"), TABLE)
def test_lines(text: str, shown: str) -> None:
    line = FORMATTER.format(record("%s: %s", "req-1", text))
    assert line == f"WARNING lmchat.rpc: req-1: {shown}"
    assert len(line.splitlines()) == 1
    line.encode()


def test_long_messages_are_cut() -> None:
    assert len(FORMATTER.format(record("x" * 10_000_000))) <= logs.MAX_CHARS


def test_tracebacks_are_indented_and_clean() -> None:
    try:
        raise ValueError("sk-secret-0123\nERROR lmchat: forged\x1b[2J")
    except ValueError as error:
        text = FORMATTER.format(record("broken", error=error))
    first, *others = text.split("\n")
    assert first == "WARNING lmchat.rpc: broken"
    assert others[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in others)
    assert "sk-secret" not in text
    assert "\x1b" not in text


@pytest.fixture(name="root")
def root_fixture() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_installed(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    root.handlers.clear()  # pytest's own
    logs.install()
    logging.getLogger("lmchat.x").info("before sk-secret-0123")
    logs.redact(Redactor(["sk-secret-0123"]))
    logging.getLogger("lmchat.x").info("after sk-secret-0123")
    try:
        b"sk-unknown-0123\xff".decode()
    except UnicodeDecodeError:
        logging.getLogger("grpc._cython.cygrpc").exception("Invalid encoding on %s", b"sk-unknown-0123\xff")
    assert capsys.readouterr().err.splitlines() == [
        "INFO lmchat.x: before sk-secret-0123",
        "INFO lmchat.x: after ***",
        "ERROR grpc._cython.cygrpc: a caller's metadata is not UTF-8",
    ]
