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

from proxy.core.gathering import Pieces
from proxy.core.nesting import Nesting

OPENING = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*+\{[ \t\r\n]*+")
STRING = rb'"(?:[^"\\]++|\\.)*+"'
KEY = re.compile(rb"(" + STRING + rb")[ \t\r\n]*+:[ \t\r\n]*+", re.DOTALL)
SCALAR = re.compile(STRING + rb'|[^ \t\r\n,"{}\[\]]++', re.DOTALL)
NEXT = re.compile(rb"[ \t\r\n]*+([,}])[ \t\r\n]*+")
UP_TO_TOKEN = re.compile(rb'[^"\[\]{}]*+')
IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
BLANKS = re.compile(rb"[ \t\r\n]++")
MAX_TOKENS = 4096  # strings and brackets at the top level; each takes a few steps of ours
BLANK = b"\xef\xbb\xbf \t\r\n"


class Member(NamedTuple):
    """Where one member of an object stands: its quoted key, and the offsets around its value."""

    key: bytes
    start: int
    value_start: int
    value_end: int


def members_of(text: bytes, start: int = 0) -> list[Member]:
    """Return the members of the object at start, in order; ValueError where there is none.

    Neither is one of the API's that has thousands.
    """
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
        if len(members) > MAX_TOKENS:
            raise ValueError(f"No JSON object of ours: more than {MAX_TOKENS} members")
        position = following.end()


def _value_end(text: bytes, start: int) -> int:
    if text[start : start + 1] not in {b"{", b"["}:
        return _matched(SCALAR, text, start).end()
    nesting = Nesting()
    end = nesting.feed(text, start + 1)
    if nesting.depth:
        raise ValueError(f"No JSON object: byte {start} begins what nothing ends")
    return end


def _matched(pattern: re.Pattern[bytes], text: bytes, position: int) -> re.Match[bytes]:
    found = pattern.match(text, position)
    if found is None:
        raise ValueError(f"No JSON object: byte {position} is not what {pattern.pattern!r} expects")
    return found


class Condenser:
    """Keep a JSON object that passes by, with `null` in place of every too large value."""

    __slots__ = (
        "_carry",
        "_dropping",
        "_kept",
        "_max_bytes",
        "_max_value_bytes",
        "_nesting",
        "_reads",
        "_tokens",
        "_value_start",
        "overflown",
    )

    def __init__(self, *, max_value_bytes: int, max_bytes: int) -> None:
        self._kept = bytearray()
        self._value_start = 0  # where the top-level value that is being read stands in what is kept
        self._max_value_bytes = max_value_bytes
        self._max_bytes = max_bytes
        self._reads: Callable[[bytes, int], int] = self._read_opening
        self._nesting: Nesting | None = None  # of the value that is being read
        self._dropping = False
        self._carry = b""  # a backslash whose other half has not come yet
        self._tokens = 0
        self.overflown = False  # even the small values are too many

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        data = self._carry + chunk if self._carry else chunk
        self._carry = b""
        position = 0
        while position < len(data) and not self.overflown:
            position = self._reads(data, position)

    def finish(self) -> bytes:
        """Return the condensed text; of what is no object, a bracket that says so."""
        return bytes(self._kept)

    def _read_opening(self, data: bytes, start: int) -> int:
        """Read up to the first brace."""
        rest = data[start:].lstrip(BLANK)
        if rest:
            is_object = rest.startswith(b"{")
            self._keep(b"{" if is_object else b"]")
            self._reads = self._read_top if is_object else _ignore
        return len(data) - len(rest[1:])

    def _read_top(self, data: bytes, start: int) -> int:
        """Read up to the next string or bracket at the top level, and into it."""
        end = UP_TO_TOKEN.match(data, start).end()  # type: ignore[union-attr]  # matches anything
        self._keep_top(data[start:end])
        token = data[end : end + 1]
        if not token:
            return end
        self._tokens += 1
        self._value_start = len(self._kept)
        self._keep(token)
        self.overflown = self.overflown or self._tokens > MAX_TOKENS
        if token == b'"':
            self._reads = self._read_string
        elif token in {b"[", b"{"}:
            self._nesting = Nesting()
            self._reads = self._read_nested
        else:
            self._reads = self._read_behind
        return end + 1

    def _read_nested(self, data: bytes, start: int) -> int:
        """Read inside a value, up to its end or the end of what is here."""
        nesting = self._nesting or Nesting()
        end = nesting.feed(data, start)
        self._keep(data[start:end])
        if not nesting.depth:
            self._end_value()
        return end

    def _read_string(self, data: bytes, start: int) -> int:
        """Read inside a string, up to its end or the end of what is here."""
        end = IN_STRING.match(data, start).end()  # type: ignore[union-attr]  # matches anything
        token = data[end : end + 1]
        if token == b'"':
            self._keep(data[start : end + 1])
            self._end_value()
            return end + 1
        self._carry = token
        self._keep(data[start:end])
        return len(data)

    def _read_behind(self, data: bytes, start: int) -> int:
        """Read behind the object: what is not blank there makes it none."""
        self._keep(data[start:].strip()[:1])
        return len(data)

    def _end_value(self) -> None:
        self._reads = self._read_top
        self._dropping = False
        self._value_start = len(self._kept)

    def _keep_top(self, data: bytes) -> None:
        """Keep one of many blanks, so that two numbers stay two and blanks are no large value."""
        data = BLANKS.sub(b" ", data)
        self._keep(data[1:] if data[:1] == b" " == self._kept[-1:] else data)

    def _keep(self, data: bytes) -> None:
        if self._dropping:
            return
        self._kept += data
        if len(self._kept) - self._value_start > self._max_value_bytes:
            self._kept[self._value_start :] = b"null"
            self._dropping = True
        self.overflown = len(self._kept) > self._max_bytes


def _ignore(data: bytes, start: int) -> int:
    del start
    return len(data)


class BodyKeeper:
    """Keep a JSON body of any size in bounded memory.

    `also` is shown all of a large one, from its beginning.
    """

    __slots__ = ("_also", "_condenser", "_kept", "_max_bytes", "_max_value_bytes")

    def __init__(
        self,
        *,
        max_bytes: int,
        max_value_bytes: int = 1 << 16,
        also: Callable[[bytes], None] | None = None,
    ) -> None:
        self._also = also
        self._kept = Pieces()
        self._condenser: Condenser | None = None
        self._max_bytes = max_bytes
        self._max_value_bytes = max_value_bytes

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if self._condenser is not None:
            self._condense(self._condenser, chunk)
            return
        self._kept.add(chunk)
        if self._kept.size > self._max_bytes:
            self._condenser = Condenser(
                max_value_bytes=self._max_value_bytes, max_bytes=self._max_bytes
            )
            self._condense(self._condenser, self._kept.joined())
            self._kept = Pieces()

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
            return self._kept.joined()
        return None if self._condenser.overflown else self._condenser.finish()
