"""`uv run plugins`: protoc plugins of the languages beside Python, and grpcurl, at pinned versions.

They are installed below `.plugins` by each language's own package manager, once; a new version is a new folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lmchat_dev import ROOT

PLUGINS = ROOT / ".plugins"

PROTOC_GEN_ES = "2.17.0"
PROTOC_GEN_GO = "1.36.12"
PROTOC_GEN_GO_GRPC = "1.6.2"
#: The release of the protoc that grpcio-tools has, in Maven's numbering.
PROTOC_JAVA = "4.35.1"
PROTOC_GEN_GRPC_JAVA = "1.83.1"
PROTOC_GEN_PROST = "0.5.0"
PROTOC_GEN_TONIC = "0.5.0"
GRPCURL = "1.9.3"
_MAVEN_DEPENDENCY_PLUGIN = "3.8.1"


class MissingToolError(Exception):
    """A toolchain is not on this machine, or could not install a plugin."""


class Language(NamedTuple):
    """How a language's stubs are made.

    `install` gives the folder of its plugins, and raises MissingToolError; `generate` writes the sources of these
    protos, which are in this descriptor set, to a folder.
    """

    install: Callable[[], Path]
    generate: Callable[[Path, Path, Path, Sequence[str]], None]


def _installed(name: str, version: str, tool: str, *commands: Sequence[str], **variables: str) -> Path:
    """The folder of these plugins, into which the first call installs them with `commands`; DIR is its path."""
    folder = PLUGINS / f"{name}-{version}"
    if folder.is_dir():
        return folder
    if shutil.which(tool) is None:
        raise MissingToolError(f"there is no {tool}")
    scratch = PLUGINS / f".{name}-{version}.{os.getpid()}"
    environment = os.environ | {key: value.replace("DIR", str(scratch)) for key, value in variables.items()}
    scratch.mkdir(parents=True)
    try:
        for command in commands:
            line = [argument.replace("DIR", str(scratch)) for argument in command]
            subprocess.run(line, env=environment, check=True, stdout=sys.stderr)
        scratch.rename(folder)
    except subprocess.CalledProcessError as error:
        raise MissingToolError(f"{error.cmd[0]} could not install its plugins") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _protoc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True)


# TypeScript


def _install_typescript() -> Path:
    package = f"@bufbuild/protoc-gen-es@{PROTOC_GEN_ES}"
    options = ("--silent", "--no-audit", "--no-fund", "--no-package-lock")
    return _installed("es", PROTOC_GEN_ES, "npm", ("npm", "install", *options, "--prefix", "DIR", package))


def _typescript(tools: Path, out: Path, descriptor: Path, protos: Sequence[str]) -> None:
    """JavaScript modules with declarations: they need no compiler. No other package has the error details."""
    _protoc(
        f"--descriptor_set_in={descriptor}",
        f"--plugin=protoc-gen-es={tools / 'node_modules/.bin/protoc-gen-es'}",
        f"--es_out={out}",
        "--es_opt=target=js+dts,import_extension=js",  # Node resolves no path without its extension
        *protos,
        "google/api/annotations.proto",
        "google/api/field_behavior.proto",
        "google/api/http.proto",
        "google/rpc/error_details.proto",
        "google/rpc/status.proto",
    )


# Go


def _install_go() -> Path:
    return _installed(
        "go",
        f"{PROTOC_GEN_GO}-{PROTOC_GEN_GO_GRPC}",
        "go",
        ("go", "install", f"google.golang.org/protobuf/cmd/protoc-gen-go@v{PROTOC_GEN_GO}"),
        ("go", "install", f"google.golang.org/grpc/cmd/protoc-gen-go-grpc@v{PROTOC_GEN_GO_GRPC}"),
        GOBIN="DIR",
    )


def _go(tools: Path, out: Path, descriptor: Path, protos: Sequence[str]) -> None:
    _protoc(
        f"--descriptor_set_in={descriptor}",
        f"--plugin=protoc-gen-go={tools / 'protoc-gen-go'}",
        f"--plugin=protoc-gen-go-grpc={tools / 'protoc-gen-go-grpc'}",
        f"--go_out={out}",
        "--go_opt=module=lmchat",
        f"--go-grpc_out={out}",
        "--go-grpc_opt=module=lmchat",
        *protos,
    )


# Java


def _install_java() -> Path:
    def copy(artifact: str) -> tuple[str, ...]:
        goal = f"org.apache.maven.plugins:maven-dependency-plugin:{_MAVEN_DEPENDENCY_PLUGIN}:copy"
        return ("mvn", "-q", "-B", goal, f"-Dartifact={artifact}:exe:{_maven_platform()}", "-DoutputDirectory=DIR")

    folder = _installed(
        "java",
        f"{PROTOC_JAVA}-{PROTOC_GEN_GRPC_JAVA}",
        "mvn",
        copy(f"com.google.protobuf:protoc:{PROTOC_JAVA}"),
        copy(f"io.grpc:protoc-gen-grpc-java:{PROTOC_GEN_GRPC_JAVA}"),
    )
    for tool in folder.iterdir():
        tool.chmod(0o755)
    return folder


def _maven_platform() -> str:
    system = {"linux": "linux", "darwin": "osx"}.get(sys.platform)
    machine = {"x86_64": "x86_64", "aarch64": "aarch_64", "arm64": "aarch_64"}.get(os.uname().machine)
    if system is None or machine is None:
        raise MissingToolError(f"Maven has no protoc for {sys.platform} on {os.uname().machine}")
    return f"{system}-{machine}"


def _java(tools: Path, out: Path, descriptor: Path, protos: Sequence[str]) -> None:
    """The protoc of grpcio-tools has no generator for Java."""
    sources = out / "src/main/java"
    sources.mkdir(parents=True)
    command = [
        str(next(tools.glob("protoc-4*"))),
        f"--descriptor_set_in={descriptor}",
        f"--plugin=protoc-gen-grpc-java={next(tools.glob('protoc-gen-grpc-java*'))}",
        f"--java_out={sources}",
        f"--grpc-java_out=@generated=omit:{sources}",
        *protos,
    ]
    subprocess.run(command, check=True)


# Rust


def _install_rust() -> Path:
    return _installed(
        "rust",
        f"{PROTOC_GEN_PROST}-{PROTOC_GEN_TONIC}",
        "cargo",
        ("cargo", "install", "--quiet", "--locked", "--root", "DIR", f"protoc-gen-prost@{PROTOC_GEN_PROST}"),
        ("cargo", "install", "--quiet", "--locked", "--root", "DIR", f"protoc-gen-tonic@{PROTOC_GEN_TONIC}"),
    )


def _rust(tools: Path, out: Path, descriptor: Path, protos: Sequence[str]) -> None:
    sources = out / "src"
    sources.mkdir()
    _protoc(
        f"--descriptor_set_in={descriptor}",
        f"--plugin=protoc-gen-prost={tools / 'bin/protoc-gen-prost'}",
        f"--plugin=protoc-gen-tonic={tools / 'bin/protoc-gen-tonic'}",
        f"--prost_out={sources}",
        f"--tonic_out={sources}",
        "--tonic_opt=no_server",
        *protos,
    )


LANGUAGES: Mapping[str, Language] = {
    "typescript": Language(_install_typescript, _typescript),
    "go": Language(_install_go, _go),
    "java": Language(_install_java, _java),
    "rust": Language(_install_rust, _rust),
}


# Tools of tests


def install_grpcurl() -> Path:
    """The folder of grpcurl."""
    package = f"github.com/fullstorydev/grpcurl/cmd/grpcurl@v{GRPCURL}"
    return _installed("grpcurl", GRPCURL, "go", ("go", "install", package), GOBIN="DIR")


def grpcurl() -> Path | None:
    """grpcurl, if it is installed."""
    path = PLUGINS / f"grpcurl-{GRPCURL}" / "grpcurl"
    return path if path.is_file() else None


def main() -> None:
    installers = {name: language.install for name, language in LANGUAGES.items()} | {"grpcurl": install_grpcurl}
    for name, install in installers.items():
        try:
            sys.stdout.write(f"{name}: {install()}\n")
        except MissingToolError as error:
            sys.stdout.write(f"skipped {name}: {error}\n")
