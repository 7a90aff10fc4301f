"""Manifests that make each folder of `generated/` a package: name, version, licence, dependencies, a short README.

Dependencies are the releases that the generated code works with; the version and the licence are the server's.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lmchat_dev import ROOT, plugins

DESCRIPTION = "Typed client stubs of lmchat, a chat-completions gateway"


class Project(NamedTuple):
    """What all packages share with the server."""

    version: str
    license: str
    #: The server's dependencies: name -> pinned version.
    pins: Mapping[str, str]

    @classmethod
    def read(cls) -> Project:
        """From pyproject.toml."""
        project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        pins = dict(line.split("==") for line in project["dependencies"])
        return cls(project["version"], project["license"], pins)


def write(name: str, out: Path) -> None:
    """Write the manifest of the package of one language into its folder, with README and licence."""
    project = Project.read()
    for file, text in _MANIFESTS[name](project).items():
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).write_text(text)
    (out / "LICENSE").write_text((ROOT / "LICENSE").read_text())


def _readme(title: str, install: str, language: str, example: str) -> str:
    return f"""# {title}

{DESCRIPTION}. The messages are documented in `proto/lmchat/v1`.

{install}

```{language}
{example}
```
"""


def _python(project: Project) -> dict[str, str]:
    pins = project.pins
    manifest = f"""\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "lmchat-client"
version = "{project.version}"
description = "{DESCRIPTION}"
readme = "README.md"
license = "{project.license}"
license-files = ["LICENSE"]
requires-python = ">=3.11"
dependencies = [
    "googleapis-common-protos>={pins["googleapis-common-protos"]}",
    "grpcio>={pins["grpcio"]}",
    "protobuf>={pins["protobuf"]}",
]

[tool.hatch.build.targets.wheel]
packages = ["lmchat"]
exclude = ["lmchat/internal"]

[tool.hatch.build.targets.sdist]
exclude = ["lmchat/internal"]
"""
    example = """\
channel = grpc.insecure_channel("127.0.0.1:8080")
chat = chat_service_pb2_grpc.ChatCompletionsStub(channel)
for chunk in chat.StreamChatCompletion(request, metadata=[("authorization", f"Bearer {key}")]):
    print("".join(choice.delta.content for choice in chunk.choices), end="", flush=True)"""
    return {
        "pyproject.toml": manifest,
        "README.md": _readme("lmchat-client", "`pip install` this folder.", "python", example),
    }


def _typescript(project: Project) -> dict[str, str]:
    manifest = {
        "name": "lmchat-client",
        "version": project.version,
        "description": DESCRIPTION,
        "license": project.license,
        "type": "module",
        "exports": {"./*": {"types": "./*.d.ts", "default": "./*.js"}},
        "files": ["lmchat", "google"],
        "sideEffects": False,
        "engines": {"node": ">=20"},
        "dependencies": {"@bufbuild/protobuf": f"^{plugins.PROTOC_GEN_ES}"},
    }
    example = """\
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ChatCompletions } from "lmchat-client/lmchat/v1/chat_service_pb";

const client = createClient(ChatCompletions, createGrpcTransport({ baseUrl: "http://127.0.0.1:8080" }));
for await (const chunk of client.streamChatCompletion(request, { headers: { authorization: `Bearer ${key}` } }))
  process.stdout.write(chunk.choices.map((choice) => choice.delta?.content ?? "").join(""));"""
    install = "`npm install` this folder, and a transport of Connect: `@connectrpc/connect-node` or `-web`."
    return {
        "package.json": json.dumps(manifest, indent=2) + "\n",
        "README.md": _readme("lmchat-client", install, "ts", example),
    }


def _go(_: Project) -> dict[str, str]:
    manifest = f"""\
module lmchat

go 1.24.0

require (
\tgoogle.golang.org/genproto/googleapis/api v0.0.0-20250804133106-a7a43d27e69b
\tgoogle.golang.org/grpc v1.76.0
\tgoogle.golang.org/protobuf v{plugins.PROTOC_GEN_GO}
)
"""
    install = (
        "In go.mod: `require lmchat v0.0.0` and `replace lmchat => <this folder>`; then `go mod tidy`. "
        "The Go package is `lmchat/v1`."
    )
    example = """\
client := lmchatv1.NewChatCompletionsClient(conn)
ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
stream, err := client.StreamChatCompletion(ctx, request)"""
    return {"go.mod": manifest, "README.md": _readme("lmchat", install, "go", example)}


def _java(project: Project) -> dict[str, str]:
    manifest = f"""\
<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>io.lmchat</groupId>
  <artifactId>lmchat-client</artifactId>
  <version>{project.version}</version>
  <name>lmchat-client</name>
  <description>{DESCRIPTION}</description>
  <licenses><license><name>{project.license}</name></license></licenses>
  <properties>
    <maven.compiler.source>17</maven.compiler.source>
    <maven.compiler.target>17</maven.compiler.target>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
    <protobuf.version>{plugins.PROTOC_JAVA}</protobuf.version>
    <grpc.version>{plugins.PROTOC_GEN_GRPC_JAVA}</grpc.version>
  </properties>
  <dependencies>
    <dependency>
      <groupId>com.google.protobuf</groupId>
      <artifactId>protobuf-java</artifactId>
      <version>${{protobuf.version}}</version>
    </dependency>
    <dependency>
      <groupId>io.grpc</groupId>
      <artifactId>grpc-protobuf</artifactId>
      <version>${{grpc.version}}</version>
    </dependency>
    <dependency>
      <groupId>io.grpc</groupId>
      <artifactId>grpc-stub</artifactId>
      <version>${{grpc.version}}</version>
    </dependency>
  </dependencies>
</project>
"""
    example = """\
var chat = ChatCompletionsGrpc.newBlockingStub(channel).withCallCredentials(new BearerToken(key));
chat.streamChatCompletion(request).forEachRemaining(chunk ->
    chunk.getChoicesList().forEach(choice -> System.out.print(choice.getDelta().getContent())));"""
    install = (
        "`mvn install` here, then depend on `io.lmchat:lmchat-client` and a transport, e.g. `io.grpc:grpc-netty`."
    )
    return {"pom.xml": manifest, "README.md": _readme("lmchat-client", install, "java", example)}


def _rust(project: Project) -> dict[str, str]:
    manifest = f"""\
[package]
name = "lmchat-client"
version = "{project.version}"
edition = "2021"
rust-version = "1.82"
description = "{DESCRIPTION}"
license = "{project.license}"
readme = "README.md"

[dependencies]
prost = "0.14"
tonic = {{ version = "0.14", default-features = false, features = ["codegen", "transport"] }}
tonic-prost = "0.14"
"""
    library = f"""\
//! {DESCRIPTION}.

/// The contract, version 1.
#[allow(clippy::all, rustdoc::all)]
pub mod v1 {{
    include!("lmchat/v1/lmchat.v1.rs");
}}
"""
    example = """\
let mut chat = ChatCompletionsClient::connect("http://127.0.0.1:8080").await?;
let mut call = tonic::Request::new(request);
call.metadata_mut().insert("authorization", format!("Bearer {key}").parse()?);
let mut chunks = chat.stream_chat_completion(call).await?.into_inner();"""
    install = '`lmchat-client = { path = "<this folder>" }` in Cargo.toml.'
    return {
        "Cargo.toml": manifest,
        "src/lib.rs": library,
        "README.md": _readme("lmchat-client", install, "rust", example),
    }


_MANIFESTS: Mapping[str, Callable[[Project], dict[str, str]]] = {
    "python": _python,
    "typescript": _typescript,
    "go": _go,
    "java": _java,
    "rust": _rust,
}
