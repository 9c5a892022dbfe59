"""Where a message begins and ends on a link: llhttp judges, we cut.

Every head and every chunked body that crosses the proxy is first put to llhttp in its strict
mode; what it refuses goes no further. Bodies with a length need no parser: the length does it.
This is the only room that knows httptools. Two habits of llhttp shape the code:

- it does not say at which byte a message ended. A chunked body ends with CR LF CR LF (after the
  last chunk or after its trailers), so it is fed in pieces that end there, and a message can only
  end at the end of a piece;
- it knows a fixed list of methods and changes its ways for `Upgrade`. Request lines are read by our
  own pattern (`core.headers`); the parser is given a plain one, and `Upgrade` under another name.
"""

import re
from collections.abc import Iterable

import httptools

from proxy.core import headers, noting, plans
from proxy.core.plans import AnswerPlan, AnswerPlans, RequestPlan, RequestPlans
from proxy.core.shapes import Lines
from proxy.errors import FramingError

_END_OF_HEAD = b"\r\n\r\n"
_STRAY_LINE_BREAK = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_PLAIN_REQUEST_LINE = (b"POST / HTTP/1.0", b"POST / HTTP/1.1")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,7})\r\n")
_SMALL_CHUNK = 4096
_OPENINGS = [b"%x\r\n" % size for size in range(_SMALL_CHUNK)]  # of chunks, by their size
_OPENING_OF_PIECE = {  # of a small chunk that is the whole piece, by the length of that
    len(opening) + size + 2: opening for size, opening in enumerate(_OPENINGS) if size
}
_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"

CHUNKED = plans.CHUNKED  # stands for a length
UNTIL_CLOSE = plans.UNTIL_CLOSE
MAX_LENGTH_DIGITS = 18
MAX_BARREN_BYTES = 65_536  # of chunk extensions and trailers, in a row
_NO_TRAILERS = frozenset(  # RFC 9110 section 6.5.1: a later reader might take them for its own
    (b"content-length", b"transfer-encoding", b"host", b"connection", b"upgrade", b"expect")
)

Trailers = list[tuple[bytes, bytes]]


class Request:
    """A request whose head has been judged. Its lines are there to be used up, once."""

    __slots__ = ("_source", "length", "lines", "plan", "raw")

    def __init__(self, raw: bytes, lines: Lines, plan: RequestPlan, source: RequestPlans) -> None:
        length = plan.length
        self.raw = raw
        self.lines = lines
        self.plan = plan
        self.length = _declared(lines[plan.length_at]) if length == plans.DECLARED else length
        self._source = source

    @property
    def head(self) -> headers.Head:
        """The head in its lines, read anew."""
        return self._source.pattern.read(self.raw)


class AnswerHead:
    """A final answer's head and what it says of the body behind it."""

    __slots__ = ("keeps_alive", "length", "lines", "plan", "raw", "status", "trailers")

    def __init__(self, raw: bytes, lines: Lines, plan: AnswerPlan, *, head_only: bool) -> None:
        self.raw = raw
        self.lines = lines
        self.plan = plan
        self.length = plan.length  # of the body, or CHUNKED, or UNTIL_CLOSE
        self.status = plan.line.status
        self.keeps_alive = plan.keeps_alive
        self.trailers: Trailers = []  # complete when the body is
        if plan.length == plans.DECLARED:
            self.length = _declared(lines[plan.length_at])
        if head_only or plan.is_bodiless:
            self.length = 0
        elif plan.length == UNTIL_CLOSE:
            self.keeps_alive = False

    @property
    def head(self) -> headers.Head:
        """The head in its lines, read anew."""
        return headers.ANSWER_PATTERN.read(self.raw)

    @property
    def request_id(self) -> str | None:
        """The name under which the upstream knows the call."""
        place = self.plan.request_id_at
        return noting.request_id(self.lines[place]) if place else None


class _Silent:
    """A parser's protocol that wants to hear nothing: the verdict alone counts."""


_SILENT = _Silent()
_ANSWER_PLANS = AnswerPlans()


def head_end(buffer: bytes, searched: int, max_head_bytes: int) -> int:
    """Return where the head at the start of the buffer ends, or -1 when more is needed.

    `searched` bytes were looked at before. Raises FramingError on a stray CR or LF, which would
    never become a head, and when the head exceeds its bound.
    """
    end = buffer.find(_END_OF_HEAD, searched - 3 if searched > 3 else 0) + 4  # noqa: PLR2004
    if end >= 4:  # noqa: PLR2004 (four is the length of the blank line)
        if end > max_head_bytes:
            raise FramingError(f"the head is longer than {max_head_bytes} bytes", status=431)
        return end
    if _STRAY_LINE_BREAK.search(buffer, max(0, searched - 1)):
        raise FramingError("a line of the head does not end with CR LF")
    if len(buffer) > max_head_bytes:
        raise FramingError(f"the head is longer than {max_head_bytes} bytes", status=431)
    return -1


def judged_request(raw: bytes, source: RequestPlans) -> Request:
    """Return what a request's head says. Raise FramingError where that is ambiguous."""
    plan, lines = source.of(raw)
    judged = _PLAIN_REQUEST_LINE[plan.line.minor_version] + raw[len(lines[0]) :]
    if plan.upgrades:
        judged = _UPGRADE.sub(b"\r\nxpgrade:", judged)
    try:
        httptools.HttpRequestParser(_SILENT).feed_data(judged)
    except httptools.HttpParserError as exc:
        raise FramingError(str(exc)) from exc
    if not plan.has_host:
        raise FramingError("an HTTP/1.1 request has exactly one Host")
    return Request(raw, lines, plan, source)


def judged_answer(raw: bytes, *, head_only: bool) -> AnswerHead:
    """Return what an answer's head says (RFC 9112 section 6.3); `head_only`: HEAD was asked."""
    plan, lines = _ANSWER_PLANS.of(raw)
    try:
        httptools.HttpResponseParser(_SILENT).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as exc:
        raise FramingError(str(exc)) from exc
    return AnswerHead(raw, lines, plan, head_only=head_only)


def _declared(line: bytes) -> int:
    """Return what a line with a Content-Length says."""
    digits = line.partition(b":")[2].strip(b" \t")
    if not digits.isdigit() or len(digits) > MAX_LENGTH_DIGITS:
        raise FramingError("Content-Length is not one decimal number")
    return int(digits)


class ChunkedReader:
    """A chunked body being read (RFC 9112 section 7.1): data, trailers, and where it ends.

    A piece that is one plain chunk, no more and no less, as an event of a stream comes, says all
    of itself by its size and its two line ends. The parser is told nothing of it: it stands
    between two chunks before and after.
    """

    __slots__ = (
        "_barren", "_between", "_data", "_listening", "_parser", "_tail", "done", "trailers",
    )  # fmt: skip

    def __init__(self) -> None:
        self.done = False
        self.trailers: Trailers = []
        self._data: list[bytes] = []
        self._barren = 0
        self._tail = b""
        self._between = True  # the parser expects a chunk, and has seen nothing of it
        self._listening = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)
        self._listening = True

    def plain(self, piece: bytes) -> bytes | None:
        """Return the data of a piece that is one small chunk, as most write it; None: `feed` it."""
        opening = _OPENING_OF_PIECE.get(len(piece))
        if (
            opening is not None
            and self._between
            and piece.startswith(opening)
            and piece.endswith(b"\r\n")
        ):
            self._barren = 0
            return piece[len(opening) : -2]
        return None

    def feed(self, piece: bytes) -> tuple[bytes, int]:
        """Return the data in the piece and how much of the piece belongs to this body.

        Raises FramingError where the chunks are not well formed.
        """
        if self._between:
            found = _CHUNK_SIZE.match(piece)
            if found is not None:
                start, size = found.end(), int(found[1], 16)
                if size and len(piece) == start + size + 2 and piece.endswith(b"\r\n"):
                    self._barren = 0
                    return piece[start:-2], len(piece)
        return self._parse(piece)

    def _parse(self, piece: bytes) -> tuple[bytes, int]:
        consumed = 0
        try:
            for end in self._ends(piece):
                self._parser.feed_data(
                    piece if end - consumed == len(piece) else piece[consumed:end]
                )
                consumed = end
                if self.done:
                    break
        except httptools.HttpParserError as exc:
            raise FramingError(str(exc)) from exc
        self._between = self._between and piece.endswith(b"\r\n")
        data = self._data
        self._data = []
        self._barren = 0 if data else self._barren + consumed
        if self._barren > MAX_BARREN_BYTES:
            raise FramingError(f"more than {MAX_BARREN_BYTES} bytes of extensions or trailers")
        return (data[0] if len(data) == 1 else b"".join(data)), consumed

    def _ends(self, piece: bytes) -> Iterable[int]:
        """Yield where the body may end: behind every CR LF CR LF, and at the end of the piece."""
        tail = self._tail
        if len(piece) < 3:  # noqa: PLR2004
            self._tail = (tail + piece)[-3:]
        else:
            self._tail = piece[-3:]
        if tail and piece[:1] in b"\r\n":
            found = (tail + piece[:3]).find(_END_OF_HEAD)
            if found >= 0:
                yield found + 4 - len(tail)
        position = piece.find(_END_OF_HEAD)
        while position >= 0:
            yield position + 4
            position = piece.find(_END_OF_HEAD, position + 2)
        yield len(piece)

    def on_body(self, data: bytes) -> None:
        """Take data from the parser."""
        self._data.append(data)

    def on_chunk_header(self) -> None:
        """Learn from the parser that the size of a chunk has come to its line end."""
        self._between = False

    def on_chunk_complete(self) -> None:
        """Learn from the parser that a chunk has come to its end."""
        self._between = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a trailer field from the parser."""
        if self._listening:
            self.trailers.append((name, value))

    def on_message_complete(self) -> None:
        """Learn from the parser that the body is over."""
        self.done = True


def judge_trailers(trailers: Trailers) -> Trailers:
    """Return the trailers of a request. Raise FramingError where one belongs into the head."""
    for name, _ in trailers:
        if name.lower() in _NO_TRAILERS:
            raise FramingError(f"{name.decode('latin-1')} cannot be a trailer")
    return trailers


def chunk(data: bytes) -> bytes:
    """Return data as one chunk."""
    size = len(data)
    if size < _SMALL_CHUNK:
        return _OPENINGS[size] + data + b"\r\n"
    return b"%x\r\n%b\r\n" % (size, data)


def last_chunk(trailers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the end of a chunked body."""
    fields = b"".join(b"%b: %b\r\n" % field for field in trailers)
    return b"0\r\n" + fields + b"\r\n"
