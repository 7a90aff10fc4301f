"""The protos as others use them: from a clone, with buf or protoc alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.api import annotations_pb2, field_behavior_pb2, http_pb2, httpbody_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_tools import protoc
from lmchat.v1 import chat_pb2, chat_service_pb2, error_reason_pb2, model_pb2, model_service_pb2

ROOT = Path(__file__).parents[2]
GOOGLEAPIS = (annotations_pb2, field_behavior_pb2, http_pb2, httpbody_pb2)
PUBLIC = (chat_pb2, chat_service_pb2, error_reason_pb2, model_pb2, model_service_pb2)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> descriptor_pool.DescriptorPool:
    """What protoc makes of `proto/`, without any other import path but its own."""
    out = tmp_path_factory.mktemp("proto") / "all.binpb"
    files = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    own = Path(protoc.__file__).parent / "_proto"
    arguments = [f"-I{ROOT / 'proto'}", f"-I{own}", "--include_imports", f"--descriptor_set_out={out}"]
    assert protoc.main(["protoc", *arguments, *files]) == 0
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)
    return pool


def test_buf_builds_and_lints_a_clone() -> None:
    buf = Path(sys.executable).with_name("buf")
    for command in ("build", "lint"):
        done = subprocess.run([buf, command, ROOT / "proto"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("module", GOOGLEAPIS, ids=lambda module: module.DESCRIPTOR.name)
def test_what_is_declared_of_googleapis_is_as_it_is_there(
    module: object, pool: descriptor_pool.DescriptorPool
) -> None:
    theirs: FileDescriptor = module.DESCRIPTOR  # type: ignore[attr-defined]
    declared = pool.FindFileByName(theirs.name)
    assert _options(declared) == {**_options(theirs), "objc_class_prefix": ""}
    assert _members(declared)
    assert _members(declared) <= _members(theirs)


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.DESCRIPTOR.name)
def test_every_public_file_has_the_options_of_the_languages(module: object) -> None:
    file: FileDescriptor = module.DESCRIPTOR  # type: ignore[attr-defined]
    options = file.GetOptions()
    assert (options.go_package, options.java_package) == ("lmchat/v1;lmchatv1", "io.lmchat.v1")
    assert options.csharp_namespace == "Lmchat.V1"
    assert options.java_multiple_files
    assert options.java_outer_classname not in file.message_types_by_name


def _options(file: FileDescriptor) -> dict[str, object]:
    options = file.GetOptions()
    names = ("go_package", "java_package", "java_multiple_files", "java_outer_classname", "objc_class_prefix")
    return {name: getattr(options, name) for name in names}


def _members(file: FileDescriptor) -> set[tuple[object, ...]]:
    """Fields, extensions and enum values, with what decides their form on the wire."""
    fields = [field for message in file.message_types_by_name.values() for field in message.fields]
    fields += file.extensions_by_name.values()
    members: set[tuple[object, ...]] = {
        (
            field.full_name,
            field.number,
            field.type,
            field.is_repeated,
            field.message_type and field.message_type.full_name,
            field.enum_type and field.enum_type.full_name,
            field.containing_oneof and field.containing_oneof.name,
        )
        for field in fields
    }
    for enum in file.enum_types_by_name.values():
        members |= {(enum.full_name, value.name, value.number) for value in enum.values}
    return members
