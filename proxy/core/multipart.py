"""Read a form that is uploaded (multipart/form-data) as it passes by, in bounded memory.

The values of the few fields that are asked for are kept, up to a size; the file of the field that
is asked for is shown to its reader, piece by piece; everything else is skipped. Parts are found by
their delimiter alone, as RFC 2046 5.1.1 has it, so a body may be cut anywhere. Names may be quoted
or not (RFC 7578 4.2; .NET does not quote). A form that is broken ends the reading, and says so.
"""

import re
from collections.abc import Callable, Collection

MAX_VALUE_BYTES = 2048  # of a field that is kept
MAX_HEADER_BYTES = 8192  # of the header of one part
MAX_PARTS = 1000
MAX_PARAMETERS = 16
MAX_BOUNDARY_BYTES = 70  # RFC 2046 5.1.1

NO_BOUNDARY = "form_without_boundary"
BROKEN = "form_is_broken"
TRUNCATED = "truncated"

_PARAMETER = re.compile(
    rb'[^;]*+;[ \t]*+([^\s=;"]++)[ \t]*+=[ \t]*+(?:"((?:[^"\\]|\\.)*+)"|([^;"\s]*+))', re.DOTALL
)
_DISPOSITION = re.compile(rb"\ncontent-disposition[ \t]*+:[ \t]*+form-data", re.IGNORECASE)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_END_OF_HEADER = b"\r\n\r\n"


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary that a Content-Type names, None where it names none."""
    boundary = _parameters(content_type.encode("latin-1", "replace")).get(b"boundary", b"")
    return boundary if 0 < len(boundary) <= MAX_BOUNDARY_BYTES else None


class FormReader:
    """Reads one form; `fields` are the values found, the last one of each name."""

    __slots__ = (
        "_buffer",
        "_delimiter",
        "_file_name",
        "_lead",
        "_name",
        "_names",
        "_parts",
        "_show",
        "_state",
        "_value",
        "fields",
        "problem",
    )

    def __init__(
        self,
        boundary: bytes | None,
        *,
        names: Collection[bytes],
        file_name: bytes = b"",
        show: Callable[[bytes], None] | None = None,
    ) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.problem: str | None = None
        self._names = names
        self._file_name = file_name if show is not None else b""
        self._show = show or _ignore  # takes the content of the first part with the file's name
        self._delimiter = b"\r\n--" + (boundary or b"")
        self._buffer = b"\r\n"  # the first delimiter needs no line before it
        self._parts = 0
        self._lead = 0  # bytes to come that are not yet content
        self._name = b""  # of the part that is being read, if it matters
        self._value: bytearray | None = None  # of the field that is being read
        self._state: _State = FormReader._read_content
        if boundary is None:
            self._stop(NO_BOUNDARY)

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        rest: bytes | None = self._buffer + chunk
        while rest is not None:
            self._buffer = rest
            rest = self._state(self, rest)

    def finish(self) -> None:
        """Learn that nothing more will come."""
        if self._state is not FormReader._skip:
            self._stop(TRUNCATED)

    # A state reads from the start of its data and returns what the next state is to read. None:
    # more bytes are needed; what is to be kept until then is in the buffer.

    def _read_content(self, data: bytes) -> bytes | None:
        """Read what comes before the next delimiter: the preamble, or a part's content."""
        end = data.find(self._delimiter)
        if end < 0:
            kept = len(self._delimiter) - 1
            self._take(data[:-kept])
            self._buffer = data[-kept:]
            return None
        self._take(data[:end])
        self._end_part()
        self._state = FormReader._read_delimiter
        return data[end + len(self._delimiter) :]

    def _read_delimiter(self, data: bytes) -> bytes | None:
        """Read the rest of a delimiter's line: closing dashes, or blanks (RFC 2046 5.1.1)."""
        if data.startswith(b"--"):
            self._state = FormReader._skip
            return data
        rest = data.lstrip(b" \t")
        if rest.startswith(b"\r\n"):
            self._state = FormReader._read_header
            return rest
        if rest not in {b"", b"\r", b"-"} or len(data) > MAX_HEADER_BYTES:
            self._stop(BROKEN)
        return None

    def _read_header(self, data: bytes) -> bytes | None:
        """Read the header of a part, from the line end of its delimiter on."""
        end = data.find(_END_OF_HEADER)
        if end > MAX_HEADER_BYTES or (end < 0 and len(data) > MAX_HEADER_BYTES + 4):
            self._stop(BROKEN)
            return None
        if end < 0:
            return None
        self._parts += 1
        if self._parts > MAX_PARTS:
            self._stop(BROKEN)
            return None
        self._begin_part(data[:end])
        self._state = FormReader._read_content
        self._lead = 2
        return data[
            end + 2 :
        ]  # the line end before the content is that of an empty one's delimiter

    def _skip(self, _data: bytes) -> bytes | None:
        """Ignore what comes behind the form."""
        self._buffer = b""
        return None

    def _begin_part(self, header: bytes) -> None:
        disposition = _DISPOSITION.search(header)
        if disposition is None:
            return
        line = header[disposition.end() :].partition(b"\r\n")[0]
        name = _parameters(line).get(b"name", b"")
        if name in self._names:
            self._name, self._value = name, bytearray()
        elif name and name == self._file_name:
            self._name, self._file_name = name, b""

    def _take(self, content: bytes) -> None:
        """Take a piece of a part."""
        if not self._name:
            return
        if self._lead:
            lead = min(self._lead, len(content))
            self._lead -= lead
            content = content[lead:]
        if self._value is None:
            self._show(content)
        elif len(self._value) <= MAX_VALUE_BYTES:
            self._value += content[: MAX_VALUE_BYTES + 1]

    def _end_part(self) -> None:
        name, value = self._name, self._value
        self._name, self._value = b"", None
        if value is not None and len(value) <= MAX_VALUE_BYTES:
            self.fields[name] = bytes(value)

    def _stop(self, problem: str) -> None:
        self.problem = problem
        self._state = FormReader._skip
        self._name, self._value, self._buffer = b"", None, b""


_State = Callable[[FormReader, bytes], "bytes | None"]


def _ignore(content: bytes) -> None:
    """Look away."""


def _parameters(text: bytes) -> dict[bytes, bytes]:
    """Return the parameters behind a media type or a disposition, by lower-case name."""
    found: dict[bytes, bytes] = {}
    position = 0
    for _ in range(MAX_PARAMETERS):
        match = _PARAMETER.match(text, position)
        if match is None:
            break
        name, quoted, bare = match.groups()
        found.setdefault(name.lower(), bare if quoted is None else _ESCAPED.sub(rb"\1", quoted))
        position = match.end()
    return found
