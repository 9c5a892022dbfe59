"""WebSocket frames as bytes, good and bad, and a script that speaks them."""

import json
import zlib
from collections.abc import Iterable
from typing import Any

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
FIELDS = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


def upgrade(target: bytes = b"/v1/realtime?model=gpt-realtime", fields: bytes = b"") -> bytes:
    """Return a request for a WebSocket."""
    return b"GET %b HTTP/1.1\r\nHost: x\r\n%b%b\r\n" % (target, fields, FIELDS)


def switched(fields: bytes = b"") -> bytes:
    """Return the answer to it."""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        + ACCEPT
        + fields
        + b"\r\n"
    )


def frame(
    data: bytes,
    opcode: int = TEXT,
    *,
    final: bool = True,
    reserved: int = 0,
    mask: bytes = b"",
) -> bytes:
    """Return one frame."""
    size = len(data)
    flag = 0x80 if mask else 0
    if size < 126:
        length = bytes([flag | size])
    elif size < 1 << 16:
        length = bytes([flag | 126]) + size.to_bytes(2)
    else:
        length = bytes([flag | 127]) + size.to_bytes(8)
    if mask:
        data = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
    return bytes([(0x80 if final else 0) | reserved | opcode]) + length + mask + data


def fragments(parts: Iterable[bytes], opcode: int = TEXT, reserved: int = 0) -> list[bytes]:
    """Return the frames of one message in several."""
    *others, last = parts
    frames = []
    for part in others:
        frames.append(frame(part, opcode, final=False, reserved=reserved))
        opcode = reserved = 0
    return [*frames, frame(last, opcode, reserved=reserved)]


def event(**members: Any) -> bytes:
    """Return an event as one text frame."""
    return frame(json.dumps(members).encode())


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """Return a close frame."""
    return frame(b"" if code is None else code.to_bytes(2) + reason, CLOSE)


class Deflater:
    """Compresses messages as permessage-deflate does."""

    def __init__(self, *, takes_over: bool = True) -> None:
        self._takes_over = takes_over
        self._history = zlib.compressobj(wbits=-15)

    def message(self, data: bytes) -> bytes:
        """Return the payload of a message."""
        if not self._takes_over:
            self._history = zlib.compressobj(wbits=-15)
        packed = self._history.compress(data) + self._history.flush(zlib.Z_SYNC_FLUSH)
        return packed.removesuffix(b"\x00\x00\xff\xff")

    def frame(self, data: bytes) -> bytes:
        """Return a message in one frame."""
        return frame(self.message(data), reserved=0x40)
