"""A share of every target's inputs in each test run; `uv run fuzz --inputs N` checks more."""

from __future__ import annotations

import os
from contextlib import nullcontext
from random import Random

import pytest

from server.dialects.registry import DIALECTS
from server.errors import LmchatError, Reason
from tests.fuzz import mutate
from tests.fuzz.run import Finding, input_of, run, share
from tests.fuzz.targets import REQUESTS, TARGETS, Decoded, Target, check_chunks, check_error, decode

#: Inputs of a test run, over all targets.
INPUTS = 20_000 if os.environ.get("CI") == "true" else 4_000
SHARES = [pytest.param(target, numbers, id=target.name) for target, numbers in share(INPUTS)]


@pytest.mark.parametrize(("target", "numbers"), SHARES)
def test_inputs_are_accepted_or_refused_with_our_own_error(target: Target, numbers: range) -> None:
    outcome = run(target, 1, numbers)
    assert not outcome.findings, "\n".join(map(str, outcome.findings))


# The fuzzer itself


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_number_makes_the_same_input_every_time(target: Target) -> None:
    for number in range(20):
        assert repr(input_of(target, 7, number)) == repr(input_of(target, 7, number))
    assert len({repr(input_of(target, 7, number)) for number in range(20)}) > 10


def test_the_shares_are_all_inputs() -> None:
    shares = {target.name: len(numbers) for target, numbers in share(20_001)}
    assert shares.keys() == TARGETS.keys()
    assert sum(shares.values()) == 20_001
    assert max(shares.values()) - min(shares.values()) <= 1


def test_a_finding_names_its_input_once_for_each_place() -> None:
    def check(value: int) -> None:
        if value % 2:
            raise KeyError(value)
        assert value != 4

    outcome = run(Target("numbers", lambda rng: rng.randrange(5), lambda: nullcontext(check)), 1, range(100))
    assert {type(finding.error) for finding in outcome.findings} == {KeyError, AssertionError}
    text = str(next(finding for finding in outcome.findings if isinstance(finding.error, KeyError)))
    assert "KeyError at test_fuzz.py:" in text
    assert "--target numbers --seed 1 --first " in text


@pytest.mark.parametrize("mutator", mutate.BYTE_MUTATORS, ids=lambda mutator: mutator.__name__.strip("_"))
def test_every_byte_mutator_changes_inputs(mutator: mutate.ByteMutator) -> None:
    changed = 0
    for number in range(100):
        data = bytearray(b'{"model": "m", "n": 12}')
        before = bytes(data)
        mutator(data, Random(number), [b"data: other"])
        changed += data != before
    assert changed > 50


def test_mutated_trees_leave_the_seed_alone_and_can_be_written() -> None:
    seed = {"a": [1, {"b": "text"}], "c": None}
    written = set()
    for number in range(300):
        rng = Random(number)
        written.add(mutate.write_json(mutate.mutate_json(seed, rng, [seed]), rng))
    assert seed == {"a": [1, {"b": "text"}], "c": None}
    assert len(written) > 100
    assert any(b"[[[[[[" in data or b'{"a":{"a":{"a"' in data for data in written)


def test_pieces_are_the_whole() -> None:
    for number in range(100):
        assert b"".join(mutate.split(b"data: 1\n\n" * 30, Random(number))) == b"data: 1\n\n" * 30


def test_the_rule_for_errors_can_fail() -> None:
    with pytest.raises(AssertionError):
        check_error(LmchatError(Reason.INTERNAL, "Why."))
    with pytest.raises(AssertionError):
        check_error(LmchatError(Reason.TIMEOUT, ""))
    check_error(LmchatError(Reason.TIMEOUT, "\ud800 is no text" * 10_000))


def test_the_rule_for_chunks_can_fail() -> None:
    answer = TARGETS["stream-openai"]
    decoded = next(
        found
        for number in range(200)
        if (found := decode_input(answer, number)).error is None and len(found.chunks) > 3
    )
    check_chunks(decoded)
    for chunks in (decoded.chunks[:1], decoded.chunks[1:], [*decoded.chunks, *decoded.chunks], []):
        with pytest.raises(AssertionError):
            check_chunks(Decoded(list(chunks), None))


def decode_input(target: Target, number: int) -> Decoded:
    value = input_of(target, 1, number)
    return decode(DIALECTS["openai"].translator, value.pieces, REQUESTS[value.request])


def test_findings_are_told_apart_by_their_place() -> None:
    assert len({Finding("t", 1, 1, b"", _raised(error)).place for error in (KeyError(1), ValueError(1))}) == 2


def _raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as raised:
        return raised
