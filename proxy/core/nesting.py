"""Find where a nested JSON value ends, at the speed of C whatever it holds.

A step for each bracket or each string would cost half a second a megabyte where there is nothing
else. So bytes are looked at block by block: escapes go, then what stands in quotes, then everything
but brackets, which are counted by eights. That tells whether the value ends in this block; one in
which it does is halved until the place is found. The grammar is not checked.
"""

import operator
from collections.abc import Iterable
from itertools import accumulate

BLOCK_BYTES = 1 << 16
FIRST_BYTES = 64  # of a value, most of which are short; each further block is twice as long
STEP_BYTES = 32  # of a block that is read byte by byte
QUOTE, BACKSLASH = 0x22, 0x5C
DEPTH_STEPS = {0x5B: 1, 0x7B: 1, 0x5D: -1, 0x7D: -1}
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in DEPTH_STEPS)


class Nesting:
    """Reads one value that has been begun, `depth` brackets of which are open."""

    __slots__ = ("_escaped", "_in_string", "depth")

    def __init__(self, depth: int = 1) -> None:
        self.depth = depth  # 0: the value is over
        self._in_string = False
        self._escaped = False  # the next byte belongs to an escape

    def feed(self, data: bytes, start: int = 0) -> int:
        """Return the offset behind the value, or behind what is here of it."""
        position, size = start, FIRST_BYTES
        while self.depth and position < len(data):
            position += self._read(data[position : position + size])
            size = min(2 * size, BLOCK_BYTES)
        return position

    def _read(self, block: bytes) -> int:
        """Return how much of a block belongs to the value."""
        if len(block) <= STEP_BYTES:
            return self._step(block)
        plain = block[self._escaped :].replace(b"\\\\", b"").replace(b'\\"', b"")
        pieces = plain.split(b'"')
        brackets = b"".join(pieces[self._in_string :: 2]).translate(_SQUARE, _NO_BRACKETS)
        closing = brackets.count(b"]")
        if self.depth > closing or self.depth > fall_of(brackets):
            self.depth += len(brackets) - 2 * closing
            self._in_string ^= len(pieces) % 2 == 0
            self._escaped = plain.endswith(b"\\")
            return len(block)
        middle = len(block) // 2
        used = self._read(block[:middle])
        return used + self._read(block[middle:]) if self.depth else used

    def _step(self, block: bytes) -> int:
        """Go from byte to byte."""
        for place, byte in enumerate(block, 1):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._in_string = byte != QUOTE
                self._escaped = byte == BACKSLASH
            elif byte == QUOTE:
                self._in_string = True
            else:
                self.depth += DEPTH_STEPS.get(byte, 0)
                if not self.depth:
                    return place
        return len(block)


def fall_of(brackets: bytes) -> int:
    """Return by how much the depth falls at most, from where these brackets begin."""
    bits = brackets.translate(_BITS) + b"0" * (-len(brackets) % 8)
    eights = int(bits or b"0", 2).to_bytes(len(bits) // 8 or 1)
    before = accumulate(map(_RISES.__getitem__, eights), initial=0)
    falls: Iterable[int] = map(operator.sub, map(_FALLS.__getitem__, eights), before)
    return max(falls)


def _fall_of_eight(bits: int) -> int:
    depths = accumulate((-1 if bits & 1 << place else 1 for place in range(7, -1, -1)), initial=0)
    return -min(depths)


_BITS = bytes.maketrans(b"[]", b"01")
_RISES = tuple(8 - 2 * bits.bit_count() for bits in range(256))  # by eight brackets
_FALLS = tuple(map(_fall_of_eight, range(256)))
