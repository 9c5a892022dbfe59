"""Find the top-level members of a JSON object without decoding what is inside them.

Two readers, for two needs. `members_of` has the whole text and gives offsets, so that bytes can be
put in or taken out and every other byte stays. `BodyKeeper` sees a body of any size pass by: a
small one it keeps, of a large one what `Condenser` leaves, the text with `null` in place of each
too large top-level value, which can be decoded like any other. Neither checks the grammar inside a
value: a decoder does that before or after.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

OPENING = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*+\{[ \t\r\n]*+")
STRING = rb'"(?:[^"\\]++|\\.)*+"'
KEY = re.compile(rb"(" + STRING + rb")[ \t\r\n]*+:[ \t\r\n]*+", re.DOTALL)
SCALAR = re.compile(STRING + rb'|[^ \t\r\n,"{}\[\]]++', re.DOTALL)
NEXT = re.compile(rb"[ \t\r\n]*+([,}])[ \t\r\n]*+")
# The outer repeat is a plain one: CPython 3.11.2 loses its place in nested possessive groups.
UP_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + STRING + rb')*([\[\]{}"])', re.DOTALL)
UP_TO_TOKEN = re.compile(rb'[^"\[\]{}]*+')
IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
MAX_DEPTH = 1000  # no decoder follows further; each bracket takes a step of ours
DEPTH_STEPS = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


class Member(NamedTuple):
    """Where one member of an object stands: its quoted key, and the offsets around its value."""

    key: bytes
    start: int
    value_start: int
    value_end: int


def members_of(text: bytes, start: int = 0) -> list[Member]:
    """Return the members of the object at start, in order; ValueError where there is none."""
    members: list[Member] = []
    position = _matched(OPENING, text, start).end()
    if text[position : position + 1] == b"}":
        return members
    while True:
        key = _matched(KEY, text, position)
        end = _value_end(text, key.end())
        members.append(Member(key[1], position, key.end(), end))
        following = _matched(NEXT, text, end)
        if following[1] == b"}":
            return members
        position = following.end()


def _value_end(text: bytes, start: int) -> int:
    if text[start : start + 1] not in {b"{", b"["}:
        return _matched(SCALAR, text, start).end()
    depth, position = 0, start
    while True:
        found = _matched(UP_TO_BRACKET, text, position)
        depth += DEPTH_STEPS.get(found[1], 0)
        position = found.end()
        if depth == 0:
            return position


def _matched(pattern: re.Pattern[bytes], text: bytes, position: int) -> re.Match[bytes]:
    found = pattern.match(text, position)
    if found is None:
        raise ValueError(f"No JSON object: byte {position} is not what {pattern.pattern!r} expects")
    return found


class Condenser:
    """Keep a JSON object that passes by, with `null` in place of every too large value."""

    __slots__ = (
        "_carry",
        "_depth",
        "_dropping",
        "_in_string",
        "_kept",
        "_max_bytes",
        "_max_value_bytes",
        "_value_start",
        "overflown",
    )

    def __init__(self, *, max_value_bytes: int, max_bytes: int) -> None:
        self._kept = bytearray()
        self._value_start = 0  # where the top-level value that is being read stands in what is kept
        self._max_value_bytes = max_value_bytes
        self._max_bytes = max_bytes
        self._depth = 0
        self._in_string = False
        self._dropping = False
        self._carry = b""  # a backslash whose other half has not come yet
        self.overflown = False  # even the small values are too many, or one is nested without end

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        data = self._carry + chunk if self._carry else chunk
        self._carry = b""
        position = 0
        while position < len(data) and not self.overflown:
            if self._in_string:
                position = self._read_string(data, position)
            elif self._depth > 1:
                position = self._read_nested(data, position)
            else:
                position = self._read_top(data, position)

    def finish(self) -> bytes:
        """Return the condensed text."""
        return bytes(self._kept)

    def _read_top(self, data: bytes, start: int) -> int:
        """Read up to the next string or bracket at the top level, and into it."""
        end = UP_TO_TOKEN.match(data, start).end()  # type: ignore[union-attr]  # matches anything
        self._keep(data[start:end])
        token = data[end : end + 1]
        if not token:
            return end
        self._in_string = token == b'"'
        self._depth += DEPTH_STEPS.get(token, 0)
        if self._in_string or self._depth > 1:
            self._value_start = len(self._kept)
        self._keep(token)
        return end + 1

    def _read_nested(self, data: bytes, start: int) -> int:
        """Read inside a value, up to its end or the end of what is here."""
        position, depth = start, self._depth
        while 1 < depth <= MAX_DEPTH:
            found = UP_TO_BRACKET.match(data, position)
            if found is None:
                position = len(data)
                break
            position = found.end()
            if found[1] == b'"':
                self._in_string = True
                break
            depth += DEPTH_STEPS[found[1]]
        self._depth = depth
        self._keep(data[start:position])
        self._end_value()
        if depth > MAX_DEPTH:
            self.overflown = True
        return position

    def _read_string(self, data: bytes, start: int) -> int:
        """Read inside a string, up to its end or the end of what is here."""
        end = IN_STRING.match(data, start).end()  # type: ignore[union-attr]  # matches anything
        token = data[end : end + 1]
        if token == b'"':
            self._in_string = False
            self._keep(data[start : end + 1])
            self._end_value()
            return end + 1
        self._carry = token
        self._keep(data[start:end])
        return len(data)

    def _end_value(self) -> None:
        if self._depth <= 1 and not self._in_string:
            self._dropping = False
            self._value_start = len(self._kept)

    def _keep(self, data: bytes) -> None:
        if self._dropping:
            return
        self._kept += data
        if len(self._kept) - self._value_start > self._max_value_bytes:
            self._kept[self._value_start :] = b"null"
            self._dropping = True
        self.overflown = len(self._kept) > self._max_bytes


class BodyKeeper:
    """Keep a JSON body of any size in bounded memory.

    `also` is shown all of a large one, from its beginning.
    """

    __slots__ = ("_also", "_condenser", "_kept", "_max_bytes", "_max_value_bytes", "_size")

    def __init__(
        self,
        *,
        max_bytes: int,
        max_value_bytes: int = 1 << 16,
        also: Callable[[bytes], None] | None = None,
    ) -> None:
        self._also = also
        self._kept: list[bytes] = []
        self._size = 0
        self._condenser: Condenser | None = None
        self._max_bytes = max_bytes
        self._max_value_bytes = max_value_bytes

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if self._condenser is not None:
            self._condense(self._condenser, chunk)
            return
        self._kept.append(chunk)
        self._size += len(chunk)
        if self._size > self._max_bytes:
            self._condenser = Condenser(
                max_value_bytes=self._max_value_bytes, max_bytes=self._max_bytes
            )
            self._condense(self._condenser, b"".join(self._kept))
            self._kept.clear()

    def _condense(self, condenser: Condenser, chunk: bytes) -> None:
        condenser.feed(chunk)
        if self._also is not None:
            self._also(chunk)

    @property
    def is_condensed(self) -> bool:
        """Whether large members may be gone."""
        return self._condenser is not None

    def finish(self) -> bytes | None:
        """Return the body, condensed where it was large; None: even so it was too large."""
        if self._condenser is None:
            return self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)
        return None if self._condenser.overflown else self._condenser.finish()
