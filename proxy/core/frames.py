"""Cut what comes over a WebSocket into messages, piece by piece, however the bytes are chunked.

RFC 6455 section 5. Payload is handed on in the pieces in which it came, so that a frame of any size
takes no memory; only a head (14 bytes at most) and a control frame (125) are put together. Bytes
that break the rules end the reading, not the relay: a peer that meets them ends its connection.
However many frames come at once, they are read one after another, and none is kept. One feed takes
a bounded effort: what is beyond it stays unread, and is to be fed again.
"""

import sys
from collections.abc import Iterator
from typing import NamedTuple

TEXT, BINARY, CLOSE = 1, 2, 8
NOT_WEBSOCKET = "not_websocket"
NO_CODE = 1005  # a close frame without a code (RFC 6455 section 7.4.1)
_CONTINUATION = 0
_CONTROLS = (CLOSE, 9, 10)
_FINAL = 0x80
_MASKED = 0x80
_COMPRESSED = 0x40  # RSV1, which permessage-deflate has taken (RFC 7692 section 7.2.3)
_RESERVED = 0x30
_SHORT = 125  # what a control frame may hold, and a length may say in its first byte
_TWO_BYTES, _EIGHT_BYTES = 126, 127
_LARGEST = 1 << 63
_CODE_BYTES = 2
_STEP_BYTES = 4096  # of a compressed payload, which may unfold to a thousand times as much


class Piece(NamedTuple):
    """The next bytes of a message of data."""

    data: bytes  # as they came, masked or not
    compressed: bool
    ends: bool  # the message ends here
    mask: bytes = b""  # as it lies on these bytes; empty: they are not masked

    @property
    def plain(self) -> bytes:
        """The bytes without their mask (RFC 6455 section 5.3)."""
        if not self.mask:
            return self.data
        size = len(self.data)
        key = (self.mask * (size // 4 + 1))[:size]
        return (int.from_bytes(self.data) ^ int.from_bytes(key)).to_bytes(size)


class FrameReader:
    """Reads one direction of a WebSocket, behind the handshake."""

    __slots__ = (
        "_at_once",
        "_carry",
        "_compressed",
        "_control",
        "_final",
        "_in_message",
        "_left",
        "_mask",
        "_masked",
        "_may_compress",
        "_opcode",
        "close_code",
        "effort",
        "problem",
        "unread",
    )

    def __init__(
        self, *, may_compress: bool, is_masked: bool = False, at_once: int = sys.maxsize
    ) -> None:
        """Take whether messages may be compressed, and whether it is what a client says.

        `at_once`: the effort of one feed, about a frame each; who has more with them takes it off.
        """
        self._at_once = self.effort = at_once
        self.unread = 0  # of the bytes that were fed last: how many at their end are to come again
        self._masked = _MASKED if is_masked else 0
        self._may_compress = may_compress
        self._carry = b""  # of a head
        self._mask = b""  # of the frame, from the next byte on
        self._left = -1  # payload bytes of the frame that are still to come; -1: between frames
        self._opcode = _CONTINUATION  # of the frame
        self._final = False  # the frame
        self._in_message = False
        self._compressed = False  # the message
        self._control = b""
        self.close_code: int | None = None  # masked where the frame is
        self.problem: str | None = None

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Yield what these bytes hold of messages; nothing any more behind a close frame."""
        position, self.unread, self.effort = 0, 0, self._at_once
        while self.problem is None and self.close_code is None:
            if self.effort <= 0:
                self.unread = len(data) - position
                break
            self.effort -= 1
            if self._left < 0:
                used = self._take_head(data[position : position + 14])
                position += used
                if self._left < 0:
                    break
            elif self._left and position >= len(data):
                break
            size = min(self._left, _STEP_BYTES) if self._compressed else self._left
            payload = data[position : position + size]
            position += len(payload)
            self._left -= len(payload)
            piece = self._take_payload(payload)
            if piece is not None:
                yield piece

    def _take_head(self, data: bytes) -> int:
        """Begin a frame where its head is whole; return how many of the bytes belong to it."""
        head = self._carry + data
        size = _head_size(head)
        if len(head) < size:
            self._carry = head
            return len(data)
        used = size - len(self._carry)
        self._carry = b""
        if not self._begin(head[0], head[1], _length(head)):
            self.problem = NOT_WEBSOCKET
        self._mask = head[size - 4 : size] if self._masked else b""
        return used

    def _begin(self, first: int, second: int, length: int) -> bool:
        """Take up a frame; tell whether the rules allow it here. Clients mask, servers do not."""
        opcode, final, compressed = first & 0x0F, bool(first & _FINAL), bool(first & _COMPRESSED)
        if first & _RESERVED or second & _MASKED != self._masked or length >= _LARGEST:
            return False
        if opcode in _CONTROLS:
            if compressed or not final or length > _SHORT:
                return False
        elif opcode == _CONTINUATION:
            if compressed or not self._in_message:
                return False
        elif self._in_message or opcode > BINARY or (compressed and not self._may_compress):
            return False
        else:
            self._compressed = compressed
        self._opcode, self._final, self._left = opcode, final, length
        if opcode not in _CONTROLS:
            self._in_message = not final
        return True

    def _take_payload(self, payload: bytes) -> Piece | None:
        """Return what it holds of a message; a control frame holds nothing of one."""
        ended = self._left == 0
        if ended:
            self._left = -1
        if self._opcode not in _CONTROLS:
            mask = self._mask
            if mask and (turned := len(payload) % 4):
                self._mask = mask[turned:] + mask[:turned]
            return Piece(payload, self._compressed, ended and self._final, mask)
        self._control += payload
        if ended:
            control, self._control = self._control, b""
            if self._opcode == CLOSE:
                code = control[:_CODE_BYTES]
                self.close_code = int.from_bytes(code) if len(code) == _CODE_BYTES else NO_CODE
        return None


def _head_size(head: bytes) -> int:
    """Return how long a head is, as far as that can be seen: at least so many bytes are needed."""
    if len(head) < _CODE_BYTES:
        return _CODE_BYTES
    length = head[1] & 0x7F
    size = 2 + (2 if length == _TWO_BYTES else 8 if length == _EIGHT_BYTES else 0)
    return size + (4 if head[1] & _MASKED else 0)


def _length(head: bytes) -> int:
    length = head[1] & 0x7F
    if length == _TWO_BYTES:
        return int.from_bytes(head[2:4])
    return int.from_bytes(head[2:10]) if length == _EIGHT_BYTES else length
