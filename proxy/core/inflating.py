"""Inflate a copy of compressed WebSocket messages: permessage-deflate, RFC 7692.

Messages mostly share one history (context takeover), so every byte of each has to be inflated for
the next one to be readable, also of those that nobody wants. What comes out of one message is
bounded, in bytes and in proportion: beyond that it is taken for a decompression bomb and nothing
further is read, unless the peer starts each message afresh. No input raises: from the first fault
on nothing comes out.
"""

import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

STEP_BYTES = 65_536
FLOOR_BYTES = 1 << 24  # of a message, of which no ratio is asked: silence unfolds to very much
MAX_RATIO = 128
UNDECODABLE = "undecodable_messages"
TOO_LARGE = "inflated_message_too_large"
UNKNOWN_EXTENSION = "unknown_websocket_extension"
_TAIL = b"\x00\x00\xff\xff"  # what the sender has left out (section 7.2.1)
_RAW = -15  # without a header; a window of any size that the sender may use
_FIELD = re.compile(rb"(?im)^sec-websocket-extensions:[ \t]*([^\r\n]*)")
_NAME = "permessage-deflate"
_FRESH = "server_no_context_takeover"
_CLIENT_FRESH = "client_no_context_takeover"


class Extensions(NamedTuple):
    """What the upstream has agreed to of what the client offered."""

    deflates: bool = False
    takes_over: bool = True  # a message may refer to those before it
    unknown: bool = False  # something else, which may mean anything
    client_takes_over: bool = True  # the same of what the client says


def extensions_of(head: bytes) -> Extensions:
    """Return what the head of a 101 says (RFC 6455 section 9.1)."""
    listed = [
        [word.strip() for word in one.decode("latin-1").lower().split(";")]
        for value in _FIELD.findall(head)
        for one in value.split(b",")
        if one.strip()
    ]
    if not listed:
        return Extensions()
    (name, *terms), *others = listed
    if name != _NAME or others:
        return Extensions(unknown=True)
    return Extensions(
        deflates=True,
        takes_over=_FRESH not in terms,
        client_takes_over=_CLIENT_FRESH not in terms,
    )


class Inflater:
    """Inflates the messages of one direction."""

    __slots__ = ("_came", "_ended", "_history", "_max_bytes", "_seen", "_takes_over", "problem")

    def __init__(self, *, takes_over: bool, max_bytes: int) -> None:
        self._takes_over = takes_over
        self._max_bytes = max_bytes
        self._history = zlib.decompressobj(_RAW)
        self._seen = 0  # of this message, inflated
        self._came = 0  # of it, as it came
        self._ended = False
        self.problem: str | None = None

    def feed(self, data: bytes, *, ends: bool) -> Iterator[bytes]:
        """Yield what the next piece of a message inflates to, in small steps."""
        if self._ended:
            self._begin()
        self._ended = ends
        if self.problem is None:
            try:
                yield from self._inflate(data + _TAIL if ends else data)
            except zlib.error:
                self.problem = UNDECODABLE

    def _begin(self) -> None:
        """Begin the next message, afresh where the peer does so as well."""
        self._seen = self._came = 0
        if not self._takes_over:
            self._history = zlib.decompressobj(_RAW)
            self.problem = None

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        step = b""
        self._came += len(data)
        most = min(self._max_bytes, FLOOR_BYTES + MAX_RATIO * self._came)
        while data or len(step) == STEP_BYTES:
            step = self._history.decompress(data, STEP_BYTES)
            self._seen += len(step)
            if self._seen > most:
                self.problem = TOO_LARGE
                return
            yield step
            data = self._history.unconsumed_tail
            if self._history.eof:  # a last block (section 7.2.3.4)
                data = self._history.unused_data
                self._history = zlib.decompressobj(_RAW)
