"""Put the messages of a WebSocket together that matter, in bounded memory.

What the others are for is mostly seen from their first bytes (`matters` says so): audio passes
without being kept. A message that grows beyond the bound is lost, as is what cannot be inflated;
`problem` says so, because something may have been billed in it. One feed takes a bounded effort.
"""

import sys
from collections.abc import Callable, Iterable, Iterator

from proxy.core.frames import FrameReader, Piece
from proxy.core.inflating import UNKNOWN_EXTENSION, Extensions, Inflater

TOO_LARGE = "event_too_large"
CUT = "session_cut_in_mid_event"
PEEK_BYTES = 256  # of a message, from which its kind can mostly be seen
INFLATED_FACTOR = 4  # how much more than it keeps of a message a reader inflates
READ_FRAMES = 8  # to read and note what matters costs as much as so many frames that do not
INFLATED_BYTES = 1024  # and to inflate so much as one


class MessageReader:
    """Reads the messages of one direction; `matters` is asked about the start of each."""

    __slots__ = (
        "_frames",
        "_inflater",
        "_kept",
        "_lost",
        "_matters",
        "_max_bytes",
        "_wanted",
    )

    def __init__(
        self,
        extensions: Extensions,
        *,
        max_bytes: int,
        matters: Callable[[bytes], bool],
        is_masked: bool = False,
        at_once: int = sys.maxsize,
    ) -> None:
        """Take what the handshake agreed on, whether it is what a client says, and the effort."""
        self._frames = FrameReader(
            may_compress=extensions.deflates, is_masked=is_masked, at_once=at_once
        )
        takes_over = extensions.client_takes_over if is_masked else extensions.takes_over
        self._inflater = Inflater(takes_over=takes_over, max_bytes=INFLATED_FACTOR * max_bytes)
        self._max_bytes = max_bytes
        self._matters = matters
        self._kept = bytearray()
        self._wanted: bool | None = None  # None: that cannot be seen yet
        self._lost = UNKNOWN_EXTENSION if extensions.unknown else None

    @property
    def close_code(self) -> int | None:
        """Return the code with which this side has closed the session."""
        return self._frames.close_code

    @property
    def unread(self) -> int:
        """Return how many bytes at the end of the last ones are to be fed again."""
        return self._frames.unread

    @property
    def problem(self) -> str | None:
        """Say why something may have been missed."""
        return self._lost or self._frames.problem

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the messages that matter and end in these bytes; only one of them is kept."""
        if self._lost == UNKNOWN_EXTENSION:
            return
        for piece in self._frames.feed(chunk):
            self._take(piece)
            if piece.ends and (message := self._ended()) is not None:
                self._frames.effort -= READ_FRAMES
                yield message

    def finish(self) -> None:
        """Learn that nothing more will come."""
        if self._wanted or (self._wanted is None and self._kept):
            self._lost = self._lost or CUT

    def _take(self, piece: Piece) -> None:
        for data in self._parts(piece):
            if self._wanted is not False:
                self._keep(data)

    def _ended(self) -> bytes | None:
        """Return a message that is whole, if it matters."""
        message, wanted = bytes(self._kept), self._wanted
        self._kept.clear()
        self._wanted = None
        return message if wanted or (wanted is None and self._matters(message)) else None

    def _parts(self, piece: Piece) -> Iterable[bytes]:
        if not piece.compressed:
            return (piece.plain,)
        return self._inflated(piece)

    def _inflated(self, piece: Piece) -> Iterable[bytes]:
        for data in self._inflater.feed(piece.plain, ends=piece.ends):
            self._frames.effort -= len(data) // INFLATED_BYTES
            yield data
        if self._inflater.problem is not None:
            self._lost = self._inflater.problem
            self._skip()

    def _keep(self, data: bytes) -> None:
        self._kept += data
        if self._wanted is None and len(self._kept) >= PEEK_BYTES:
            self._wanted = self._matters(bytes(self._kept[:PEEK_BYTES]))
            if not self._wanted:
                self._skip()
        if len(self._kept) > self._max_bytes:
            self._lost = TOO_LARGE
            self._skip()

    def _skip(self) -> None:
        """Keep nothing more of this message."""
        self._kept.clear()
        self._wanted = False
