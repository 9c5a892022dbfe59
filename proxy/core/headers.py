"""Header fields as bytes: find the few that matter, leave lines out, keep every other byte.

A head is what came over the wire, from the first line to the empty one. Its lines are looked at
once: those that stay with the proxy are left out, the values that the relay needs are noted, and
every other line goes on as it came. Whether a head is well formed is judged elsewhere
(`proxy.framing`); here it is trusted: every field stands on a line of its own and no white space
precedes a colon.
"""

import re
from collections.abc import Container, Iterable
from functools import lru_cache
from typing import NamedTuple

MAX_SPELLINGS = 1024
MAX_SPELLING_BYTES = 64
MAX_REMEMBERED_BYTES = 256  # of a first line

HOP_BY_HOP = (  # RFC 9110 section 7.6.1, RFC 2616 section 13.5.1
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authorization",
    b"te",
    b"upgrade",
)
_REQUEST_FIELDS = (
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
    b"content-length",
    b"transfer-encoding",
    b"content-type",
    b"content-encoding",
    b"x-request-id",
    b"apim-request-id",
)
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^\x00-\x20\x7f]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [^\r\n]*)?")


Fields = dict[bytes, list[bytes]]  # values by lower-case name, in the order of the head


class Head(NamedTuple):
    """A head in its lines, without their line breaks."""

    raw: bytes  # as it came
    first_line: bytes
    lines: list[bytes]  # the field lines that pass, as they came
    fields: Fields  # the values that were looked for, of lines that pass or not
    passes_whole: bool  # every line passes


class FieldPattern:
    """Reads heads: which fields to note, and which of those stay with the proxy.

    A spelling met before is looked up, not folded again; how many are remembered is bounded,
    because clients choose them.
    """

    __slots__ = ("_known", "_left_out", "_noted", "_prefixes")

    def __init__(
        self,
        noted: Iterable[bytes],
        *,
        left_out: Iterable[bytes] = HOP_BY_HOP,
        prefixes: Iterable[bytes] = (),
    ) -> None:
        """Take lower-case names; those left out, and those with a prefix, are noted as well."""
        self._left_out = frozenset(left_out)
        self._noted = frozenset(noted)
        self._prefixes = tuple(prefixes)
        self._known: dict[bytes, tuple[bytes, bool] | None] = {}

    def read(self, raw: bytes) -> Head:
        """Return the head in its lines."""
        lines = raw.split(b"\r\n")
        passing: list[bytes] = []
        fields: Fields = {}
        known = self._known
        for line in lines[1:-2]:
            spelling, _, value = line.partition(b":")
            try:
                kind = known[spelling]
            except KeyError:
                kind = self._learn(spelling)
            if kind is None:
                passing.append(line)
                continue
            name, passes = kind
            if passes:
                passing.append(line)
            if name in fields:
                fields[name].append(value.strip(b" \t"))
            else:
                fields[name] = [value.strip(b" \t")]
        return Head(raw, lines[0], passing, fields, len(passing) == len(lines) - 3)

    def passes(self, line: bytes) -> bool:
        """Tell whether a field line goes on."""
        name = name_of(line)
        return name not in self._left_out and not name.startswith(self._prefixes)

    def _learn(self, spelling: bytes) -> tuple[bytes, bool] | None:
        name = spelling.lower()
        passes = name not in self._left_out and not name.startswith(self._prefixes)
        kind = (name, passes) if name in self._noted or not passes else None
        if len(self._known) >= MAX_SPELLINGS:
            self._known.clear()
        if len(spelling) <= MAX_SPELLING_BYTES:
            self._known[spelling] = kind
        return kind


def request_pattern(names: Iterable[bytes], prefixes: Iterable[bytes]) -> FieldPattern:
    """Return the pattern for requests; the attribution fields are given, in any case."""
    return FieldPattern(
        _REQUEST_FIELDS,
        left_out=(*HOP_BY_HOP, *(name.lower() for name in names)),
        prefixes=[prefix.lower() for prefix in prefixes],
    )


ANSWER_PATTERN = FieldPattern(_ANSWER_FIELDS)


class RequestLine(NamedTuple):
    """The first line of a request."""

    method: bytes
    target: bytes
    minor_version: int


class StatusLine(NamedTuple):
    """The first line of an answer."""

    status: int
    minor_version: int


def request_line(first_line: bytes) -> RequestLine | None:
    """Return the request line, None where it is not one of HTTP/1.0 or HTTP/1.1 (RFC 9112 3).

    Short ones are remembered, but no query: it may hold what nobody should keep.
    """
    if len(first_line) > MAX_REMEMBERED_BYTES or b"?" in first_line:
        return _request_line(first_line)
    return _remembered_request_line(first_line)


@lru_cache(maxsize=1024)
def _remembered_request_line(first_line: bytes) -> RequestLine | None:
    return _request_line(first_line)


def _request_line(first_line: bytes) -> RequestLine | None:
    match = _REQUEST_LINE.fullmatch(first_line)
    if match is None:
        return None
    return RequestLine(match[1], match[2], 1 if match[3] == b"1" else 0)


def status_line(first_line: bytes) -> StatusLine | None:
    """Return the status line, None where it is not one of HTTP/1.0 or HTTP/1.1 (RFC 9112 4)."""
    if len(first_line) > MAX_REMEMBERED_BYTES:
        return _status_line(first_line)
    return _remembered_status_line(first_line)


@lru_cache(maxsize=1024)
def _remembered_status_line(first_line: bytes) -> StatusLine | None:
    return _status_line(first_line)


def _status_line(first_line: bytes) -> StatusLine | None:
    match = _STATUS_LINE.fullmatch(first_line)
    if match is None:
        return None
    return StatusLine(int(match[2]), 1 if match[1] == b"1" else 0)


def keeps_alive(fields: Fields, minor_version: int) -> bool:
    """Tell whether a connection outlives a message with these fields (RFC 9112 section 9.3)."""
    options = fields.get(b"connection")
    if options is None:
        return minor_version == 1
    if options == _KEEP_ALIVE:
        return True
    wishes = tokens(fields, b"connection")
    return b"close" not in wishes and (minor_version == 1 or b"keep-alive" in wishes)


def first(fields: Fields, name: bytes) -> bytes | None:
    """Return the first value of a field, None where it is absent."""
    values = fields.get(name)
    return values[0] if values else None


def text(fields: Fields, name: bytes) -> str:
    """Return the first value of a field as text, empty where it is absent."""
    values = fields.get(name)
    return values[0].decode("latin-1") if values else ""


def tokens(fields: Fields, name: bytes) -> list[bytes]:
    """Return the lower-case members of a comma-separated field, over all its lines."""
    return [
        token
        for value in fields.get(name, ())
        for token in (part.strip(b" \t").lower() for part in value.split(b","))
        if token
    ]


def name_of(line: bytes) -> bytes:
    """Return the lower-case name of a field line."""
    return line.partition(b":")[0].lower()


def without(lines: Iterable[bytes], names: Container[bytes]) -> list[bytes]:
    """Return the lines less those of the named fields."""
    return [line for line in lines if name_of(line) not in names]


def nominated(fields: Fields) -> list[bytes]:
    """Return the names that `Connection` takes out of the head (RFC 9110 section 7.6.1)."""
    if fields.get(b"connection") in _ORDINARY_CONNECTIONS:
        return []
    return [name for name in tokens(fields, b"connection") if name not in _NOT_NOMINATED]


def replaced(lines: Iterable[bytes], name: bytes, value: bytes) -> list[bytes]:
    """Return the lines with another value for a field; its name stays as it was spelled."""
    return [
        line.partition(b":")[0] + b": " + value if name_of(line) == name else line for line in lines
    ]


def joined(first_line: bytes, lines: Iterable[bytes], added: bytes = b"") -> bytes:
    """Return a head; `added` are whole lines."""
    return b"\r\n".join((first_line, *lines)) + b"\r\n" + added + b"\r\n"


_KEEP_ALIVE = [b"keep-alive"]
_ORDINARY_CONNECTIONS = (None, _KEEP_ALIVE, [b"close"])
_NOT_NOMINATED = frozenset(  # options of the connection, and what frames the message
    (b"close", b"keep-alive", b"upgrade", b"host", b"content-length", b"transfer-encoding")
)
