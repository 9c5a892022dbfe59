"""Header fields as bytes: find the few that matter, cut lines out, leave every other byte alone.

A head is what came over the wire, from the first line to the empty one. It is never taken apart
and built again: one pass of one pattern over its lower-case copy finds the fields that the relay
knows, and an edit is a list of cuts. Whether a head is well formed has been judged before
(`proxy.framing`); here it is trusted: every field stands on a line of its own and no white space
precedes a colon.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

MAX_SPELLINGS = 1024
MAX_SPELLING_BYTES = 64

HOP_BY_HOP = (  # RFC 9110 section 7.6.1, RFC 2616 section 13.5.1
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authorization",
    b"te",
    b"upgrade",
)
_REQUEST_FIELDS = (
    *HOP_BY_HOP,
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"content-type",
    b"content-encoding",
    b"accept-encoding",
    b"expect",
    b"x-stainless-retry-count",
)
_ANSWER_FIELDS = (
    *HOP_BY_HOP,
    b"content-length",
    b"transfer-encoding",
    b"content-type",
    b"content-encoding",
    b"x-request-id",
    b"apim-request-id",
)
_REQUEST_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^\x00-\x20\x7f]+) HTTP/1\.([01])\r\n"
)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\r\n]*)?\r\n")


class Field(NamedTuple):
    """One field line: `head[start:end]` is the line break before it, its name and its value."""

    start: int
    end: int
    value: bytes


Fields = dict[bytes, list[Field]]
Cut = tuple[int, int, bytes]  # start, end, what comes in its place


class FieldPattern:
    """Finds the named fields, and those whose names begin with a prefix, in one pass.

    A spelling met before is looked up, not folded again; how many are remembered is bounded,
    because clients choose them.
    """

    __slots__ = ("_known", "_names", "_prefixes")

    def __init__(self, names: Iterable[bytes], prefixes: Iterable[bytes] = ()) -> None:
        """Take lower-case names and prefixes."""
        self._names = frozenset(names)
        self._prefixes = tuple(prefixes)
        self._known: dict[bytes, bytes | None] = {}

    def fields(self, head: bytes) -> Fields:
        """Return the fields found, by lower-case name, in the order of the head."""
        found: Fields = {}
        known = self._known
        lines = head.split(b"\r\n")
        end = len(lines[0])
        for line in lines[1:-2]:
            start, end = end, end + 2 + len(line)
            colon = line.find(b":")
            spelling = line[:colon]
            name = known[spelling] if spelling in known else self._learn(spelling)
            if name is not None:
                field = Field(start, end, line[colon + 1 :].strip(b" \t"))
                if name in found:
                    found[name].append(field)
                else:
                    found[name] = [field]
        return found

    def _learn(self, spelling: bytes) -> bytes | None:
        folded = spelling.lower()
        known = folded in self._names or folded.startswith(self._prefixes)
        name = folded if known else None
        if len(self._known) >= MAX_SPELLINGS:
            self._known.clear()
        if len(spelling) <= MAX_SPELLING_BYTES:
            self._known[spelling] = name
        return name


def request_pattern(names: Iterable[bytes], prefixes: Iterable[bytes]) -> FieldPattern:
    """Return the pattern for requests; the attribution fields are given, in any case."""
    return FieldPattern(
        [*_REQUEST_FIELDS, *(name.lower() for name in names)],
        [prefix.lower() for prefix in prefixes],
    )


ANSWER_PATTERN = FieldPattern(_ANSWER_FIELDS)


class RequestLine(NamedTuple):
    """The first line of a request; `end` is where its text ends, before the line break."""

    method: bytes
    target: bytes
    minor_version: int
    end: int


class StatusLine(NamedTuple):
    """The first line of an answer."""

    status: int
    minor_version: int


def request_line(head: bytes) -> RequestLine | None:
    """Return the request line, None where it is not one of HTTP/1.0 or HTTP/1.1 (RFC 9112 3)."""
    match = _REQUEST_LINE.match(head)
    if match is None:
        return None
    minor_version = 1 if match.group(3) == b"1" else 0
    return RequestLine(match.group(1), match.group(2), minor_version, match.end() - 2)


def status_line(head: bytes) -> StatusLine | None:
    """Return the status line, None where it is not one of HTTP/1.0 or HTTP/1.1 (RFC 9112 4)."""
    match = _STATUS_LINE.match(head)
    if match is None:
        return None
    return StatusLine(int(match.group(2)), 1 if match.group(1) == b"1" else 0)


def first(fields: Fields, name: bytes) -> bytes | None:
    """Return the first value of a field, None where it is absent."""
    found = fields.get(name)
    return found[0].value if found else None


def text(fields: Fields, name: bytes) -> str:
    """Return the first value of a field as text, empty where it is absent."""
    found = fields.get(name)
    return found[0].value.decode("latin-1") if found else ""


def tokens(fields: Fields, name: bytes) -> list[bytes]:
    """Return the lower-case members of a comma-separated field, over all its lines."""
    return [
        token
        for field in fields.get(name, ())
        for token in (part.strip(b" \t").lower() for part in field.value.split(b","))
        if token
    ]


def nominated(head: bytes, fields: Fields) -> list[Cut]:
    """Return cuts for the fields that `Connection` names (RFC 9110 section 7.6.1)."""
    names = [
        token
        for token in tokens(fields, b"connection")
        if token not in (b"close", b"keep-alive", b"upgrade", *_FRAMING)
    ]
    if not names:
        return []
    return removals(FieldPattern(names).fields(head), names)


_FRAMING = (b"host", b"content-length", b"transfer-encoding")  # never removed on a peer's word


def removals(fields: Fields, names: Iterable[bytes]) -> list[Cut]:
    """Return cuts that take the named fields out."""
    return [(field.start, field.end, b"") for name in names for field in fields.get(name, ())]


def replaced(head: bytes, field: Field, value: bytes) -> Cut:
    """Return a cut that gives a field another value and leaves its name as it was spelled."""
    return head.index(b":", field.start) + 1, field.end, b" " + value


def edited(head: bytes, cuts: list[Cut]) -> bytes:
    """Return the head with the cuts made; cuts may come in any order, doubled ones count once."""
    parts: list[bytes] = []
    position = 0
    for start, end, replacement in sorted(cuts):
        if start < position:
            continue
        parts += (head[position:start], replacement)
        position = end
    parts.append(head[position:])
    return b"".join(parts)
