"""Read from what a client says in a session which models it asks for, and whether it hangs up.

Most APIs name a model when the session is opened; where each request names its own, requests are
read, the rest of what the client says is passed over. Requests are answered in the order in which
they came, so whoever is told of a response takes the next one. Nothing here raises into the relay.
"""

import sys
from collections import deque

import msgspec

from proxy.core.dialects import KIND
from proxy.core.findings import text_of
from proxy.core.frames import FrameReader
from proxy.core.inflating import Extensions
from proxy.core.mending import UNREADABLE, read
from proxy.core.messages import MessageReader

MAX_WAITING = 256  # requests that have not been answered


class _Request(msgspec.Struct, gc=False):
    type: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()


_read_request = msgspec.json.Decoder(_Request).decode


class ClientReader:
    """Reads what a client says; `asks` is the kind of its requests, empty: they name no model."""

    __slots__ = ("_asks", "_frames", "_messages", "_waiting")

    def __init__(
        self, asks: bytes, extensions: Extensions, *, max_bytes: int, at_once: int = sys.maxsize
    ) -> None:
        self._asks = asks
        self._waiting: deque[str | None] = deque(maxlen=MAX_WAITING)
        self._frames = FrameReader(
            may_compress=extensions.deflates, is_masked=True, at_once=at_once
        )
        self._messages = MessageReader(
            extensions,
            max_bytes=max_bytes,
            matters=self._matters,
            is_masked=True,
            at_once=at_once,
        )

    @property
    def has_closed(self) -> bool:
        """Whether the client has closed the session."""
        reader = self._messages if self._asks else self._frames
        return reader.close_code is not None

    @property
    def unread(self) -> int:
        """Return how many bytes at the end of the last ones are to be fed again."""
        return (self._messages if self._asks else self._frames).unread

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        if not self._asks:
            deque(self._frames.feed(chunk), maxlen=0)  # no more than a close frame is looked for
            return
        for message in self._messages.feed(chunk):
            try:
                request = read(_read_request, message)
            except UNREADABLE:
                request = _Request(type=msgspec.Raw(b'"%b"' % self._asks))  # it is answered, too
            if text_of(request.type) == self._asks.decode():
                self._waiting.append(text_of(request.model))

    def next_model(self) -> str | None:
        """Return the model of the request that is answered now; None: that is not known."""
        if self._messages.problem is not None:  # some request was not read, perhaps this one
            return None
        return self._waiting.popleft() if self._waiting else None

    def _matters(self, start: bytes) -> bool:
        found = KIND.match(start)
        return found is None or found[1] == self._asks
