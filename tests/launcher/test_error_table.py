"""The contract's comments and Envoy's Lua agree with the table of errors in server/errors.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import grpc
import pytest
from lmchat.v1 import error_reason_pb2

from server.errors import DOMAIN, STATUS, AttemptRecord, Reason
from server.launcher import resources

PROTO = Path(__file__).parents[2] / "proto/lmchat/v1/error_reason.proto"
RESERVED = {Reason.MODEL_NOT_ALLOWED, Reason.BUDGET_EXCEEDED}

#: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto, which Envoy's transcoder follows.
HTTP_OF_GRPC = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


def comments() -> dict[str, str]:
    """Reason, in lower case -> its comment, without the slashes."""
    found = re.findall(r"((?:  //.*\n)+)  ERROR_REASON_(\w+) = ", PROTO.read_text(encoding="utf-8"))
    return {name.lower(): re.sub(r"^  // ?", "", comment, flags=re.MULTILINE) for comment, name in found}


def lua(name: str) -> str:
    """The table `name` of the Lua in envoy.yaml, without its braces."""
    template = resources.envoy_template().read_text(encoding="utf-8")
    table = re.search(rf"^ *local {name} = \{{\n(.*?)^ *\}}$", template, re.DOTALL | re.MULTILINE)
    assert table is not None
    return table[1]


def lua_errors() -> dict[int, tuple[str, str]]:
    """HTTP status -> type and reason of an error that Envoy itself makes."""
    rows = re.findall(r"\[(\d+)\] = \{\"(\w+)\", \"(\w+)\", \".+\"\},\n", lua("ERRORS"))
    assert len(rows) == len(lua("ERRORS").splitlines())
    return {int(status): (type_, reason) for status, type_, reason in rows}


def test_every_reason_has_a_status_and_a_number() -> None:
    numbers = {
        name.removeprefix("ERROR_REASON_").lower()
        for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    }
    assert numbers == {*Reason, "unspecified"}
    assert STATUS.keys() == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_the_contract_documents_a_reason(reason: Reason) -> None:
    comment = comments()[reason]
    status = STATUS[reason]
    assert comment.startswith(f"{status.http} {status.grpc.name}. ")
    assert ("Reserved for access control" in " ".join(comment.split())) is (reason in RESERVED)
    example = json.loads(comment[comment.index("{") :])
    assert (example["reason"], example["domain"]) == (reason.upper(), DOMAIN)
    metadata = example["metadata"]
    assert metadata.keys() <= {"request_id", "param", "attempts"}
    assert metadata["request_id"]
    for attempt in json.loads(metadata.get("attempts", "[]")):
        assert tuple(attempt) == AttemptRecord.__struct_fields__


def test_envoy_sets_the_statuses_that_grpc_codes_do_not_stand_for() -> None:
    rows = dict(re.findall(r"(\w+) = (\d+)", lua("STATUS")))
    assert {reason: int(status) for reason, status in rows.items()} == {
        str(reason): status.http for reason, status in STATUS.items() if HTTP_OF_GRPC[status.grpc] != status.http
    }


def test_envoy_knows_every_status() -> None:
    assert {status.http for status in STATUS.values()} <= lua_errors().keys()


@pytest.mark.parametrize(("status", "row"), lua_errors().items())
def test_envoys_own_errors_are_those_of_the_table(status: int, row: tuple[str, str]) -> None:
    type_, reason = row
    assert STATUS[Reason(reason)].type == type_
    # The rest are statuses of HTTP itself, which no worker sends.
    assert STATUS[Reason(reason)].http == status or status in (408, 426, 431, 501)
