"""gRPC-Web's framing: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md."""

from __future__ import annotations

import base64
import struct

from google.protobuf.message import Message


def framed(message: Message) -> bytes:
    """The body of a request."""
    data = message.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


def frames(body: bytes) -> tuple[list[bytes], dict[str, str]]:
    """The messages and the trailers of a gRPC-Web reply."""
    messages, trailers = [], {}
    while body:
        flag, size = struct.unpack(">BI", body[:5])
        data, body = body[5 : 5 + size], body[5 + size :]
        if flag & 0x80:
            pairs = (line.split(":", 1) for line in data.decode().strip().split("\r\n"))
            trailers = {name: value.strip() for name, value in pairs}
        else:
            messages.append(data)
    return messages, trailers


def unpadded(text: bytes) -> bytes:
    """Decodes base64 with padding in several places, as each frame is encoded separately."""
    return b"".join(base64.b64decode(text[i : i + 4]) for i in range(0, len(text), 4))
