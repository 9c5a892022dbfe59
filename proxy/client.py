"""The client's side of a link: requests in, answers out, one exchange at a time.

A link finds where a request ends and refuses what is ambiguous; what a request means is its
exchange's business (`proxy.forwarding`, `proxy.health`). A pipelined request waits, unread, until
the exchange before it is over.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import msgspec
from typing_extensions import override

from proxy import framing
from proxy.core import headers
from proxy.errors import FramingError, MeterError

LINGER_SECONDS = 5.0  # how long a refused or early-answered request may still be read
_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a link bears with."""

    max_head_bytes: int = 65536
    head_timeout_seconds: float = 60.0
    idle_timeout_seconds: float = 300.0


class Request(NamedTuple):
    """A request whose head has been judged."""

    head: bytes
    line: headers.RequestLine
    fields: headers.Fields
    length: int  # of the body, or framing.CHUNKED

    @property
    def keeps_alive(self) -> bool:
        """Whether the client wants the link to stay (RFC 9112 section 9.3)."""
        if b"connection" not in self.fields:
            return self.line.minor_version == 1
        options = headers.tokens(self.fields, b"connection")
        if b"close" in options:
            return False
        return self.line.minor_version == 1 or b"keep-alive" in options


class Exchange(Protocol):
    """What a link tells of the request that it is reading."""

    @property
    def answering(self) -> bool:
        """Whether bytes of an answer have gone out."""

    def start(self, body: bytes, *, complete: bool) -> None:
        """Begin: the head is known, and the whole body where it is complete."""

    def request_body(self, data: bytes) -> None:
        """Take more of the body."""

    def request_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """Learn that the body is over."""

    def tunnelled_up(self, data: bytes) -> None:
        """Take bytes from the tunnel."""

    def client_gone(self) -> None:
        """Learn that the client has left."""

    def client_paused(self) -> None:
        """Stop writing: the client does not keep up."""

    def client_resumed(self) -> None:
        """Go on writing."""

    def check(self, now: float) -> None:
        """Look whether something has taken too long."""


class ClientLink(asyncio.Protocol):
    """One connection from a client."""

    __slots__ = (
        "_begin",
        "_buffer",
        "_chunks",
        "_head_since",
        "_length",
        "_limits",
        "_lingering",
        "_links",
        "_pattern",
        "_refused",
        "_report_fault",
        "_searched",
        "_since",
        "_tunnel",
        "active",
        "closing",
        "exchange",
        "half_closed",
        "reading_paused",
        "transport",
        "writing_paused",
    )

    def __init__(
        self,
        *,
        begin: Callable[["ClientLink", Request], Exchange],
        pattern: headers.FieldPattern,
        limits: Limits,
        links: set["ClientLink"],
        refused: Callable[[MeterError], None],
        report_fault: Callable[[BaseException], None],
    ) -> None:
        """Take what makes an exchange, the register of links, and who hears of refusals."""
        self._begin = begin
        self._pattern = pattern
        self._limits = limits
        self._links = links
        self._refused = refused
        self._report_fault = report_fault
        self.transport: asyncio.Transport
        self.exchange: Exchange | None = None
        self.active = True
        self.closing = False  # the link ends with the exchange that is under way
        self.half_closed = False  # the client has said all that it will
        self.writing_paused = False
        self.reading_paused = False
        self._lingering = False
        self._tunnel = False
        self._buffer = b""
        self._searched = 0
        self._length: int | None = None  # what is missing of the body; None between requests
        self._chunks: framing.ChunkedReader | None = None
        self._since = 0.0
        self._head_since = 0.0

    # What the exchange does.

    @property
    def request_incomplete(self) -> bool:
        """Whether body is still missing."""
        return self._length is not None

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        self.transport.write(data)

    def tunnel(self) -> None:
        """Stop reading requests: from here on all bytes are the exchange's."""
        self._tunnel = True
        rest, self._buffer = self._buffer, b""
        self.resume()
        if rest and self.exchange is not None:
            self.exchange.tunnelled_up(rest)

    def pause(self) -> None:
        """Stop reading."""
        if not self.reading_paused and not self.transport.is_closing():
            self.reading_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if self.reading_paused:
            self.reading_paused = False
            self.active = True
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def finished(self, *, close: bool) -> None:
        """End the exchange; the link goes on to the next request or ends."""
        self.exchange = None
        if close or self.closing or self.half_closed:
            self._end()
            return
        self.resume()
        if self._buffer:
            asyncio.get_running_loop().call_soon(self._advance)

    def refuse(self, error: MeterError, *, status: int, error_type: str) -> None:
        """Answer what cannot be relayed, and end the link."""
        self._refused(error)
        self.write(error_answer(status, str(error), error_type, close=True))
        self.exchange = None
        self._end()

    def drop(self) -> None:
        """End the link at once, so that an incomplete answer is seen to be one."""
        self.exchange = None
        self.transport.abort()

    def stop(self) -> None:
        """End the link as soon as nothing is under way."""
        self.closing = True
        if self.exchange is None and not self._lingering:
            self.transport.close()

    def _end(self) -> None:
        """Close, but read on for a while: unread bytes would reset the connection."""
        self.closing = True
        if self._length is None and not self._buffer:
            self.transport.close()
            return
        self._lingering = True
        self._buffer = b""
        self._head_since = asyncio.get_running_loop().time()
        self.resume()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()

    # What the transport does.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._links.add(self)

    @override
    def data_received(self, data: bytes) -> None:
        self.active = True
        if self._lingering:
            return
        if self._tunnel:
            if self.exchange is not None:
                self.exchange.tunnelled_up(data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._advance()

    @override
    def eof_received(self) -> bool:
        """Keep a link open on which only the client's half was closed (RFC 9112 section 9.6)."""
        self.half_closed = True
        plain = self.transport.get_extra_info("sslcontext") is None
        return plain and self.exchange is not None and self._length is None and not self._tunnel

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._links.discard(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    @override
    def pause_writing(self) -> None:
        self.writing_paused = True
        if self.exchange is not None:
            self.exchange.client_paused()

    @override
    def resume_writing(self) -> None:
        self.writing_paused = False
        self.active = True
        if self.exchange is not None:
            self.exchange.client_resumed()

    def check(self, now: float) -> None:
        """Look whether something has taken too long; called about once a second."""
        if self.active:
            self.active = False
            self._since = now
        if self._lingering:
            if now - self._head_since > LINGER_SECONDS:
                self.transport.abort()
        elif self.exchange is not None:
            self.exchange.check(now)
        elif self._buffer:
            if now - self._head_since > self._limits.head_timeout_seconds:
                error = FramingError("the request's head did not arrive in time")
                self.refuse(error, status=408, error_type="request_timeout")
        elif now - self._since > self._limits.idle_timeout_seconds:
            self.transport.close()

    def idle_seconds(self, now: float) -> float:
        """Return for how long nothing has come from the client, or been taken by it."""
        return now - self._since

    # How a request is taken.

    def _advance(self) -> None:
        data, self._buffer = self._buffer, b""
        try:
            while data and not self._lingering and not self._tunnel:
                if self._length is not None:
                    data = self._take_body(data, self._length)
                elif self.exchange is not None:  # pipelined: it waits for its turn
                    self._buffer = data
                    self.pause()
                    return
                else:
                    data = self._take_head(data)
        except FramingError as exc:
            self._refuse_framing(exc)
            return
        except Exception as exc:  # noqa: BLE001 (the relay's last line: a fault ends one link)
            self._report_fault(exc)
            self.transport.abort()
            return
        if data and self._tunnel and self.exchange is not None:
            self.exchange.tunnelled_up(data)

    def _refuse_framing(self, error: FramingError) -> None:
        exchange = self.exchange
        self._length = 0  # what follows cannot be told apart, and is not read
        if exchange is not None:
            self.exchange = None
            answering = exchange.answering
            exchange.client_gone()
            if answering:
                self.drop()
                return
        self.refuse(error, status=error.status, error_type="invalid_request_framing")

    def _take_head(self, data: bytes) -> bytes:
        """Take a request's head, with its body where that is here too; return what follows."""
        if data[:2] == b"\r\n":  # RFC 9112 section 2.2
            return data[2:]
        end = framing.head_end(data, self._searched, self._limits.max_head_bytes)
        if end < 0:
            if not self._searched:
                self._head_since = asyncio.get_running_loop().time()
            self._buffer = data
            self._searched = len(data)
            return b""
        self._searched = 0
        request = self._judged(data[:end])
        body_end = end + request.length
        exchange = self.exchange = self._begin(self, request)
        if request.length >= 0 and len(data) >= body_end:
            exchange.start(data[end:body_end], complete=True)
            return data[body_end:]
        self._length = request.length
        self._chunks = framing.ChunkedReader() if request.length == framing.CHUNKED else None
        exchange.start(b"", complete=False)
        return data[end:]

    def _judged(self, head: bytes) -> Request:
        line = headers.request_line(head)
        if line is None:
            raise FramingError("the request line is not one of HTTP/1.0 or HTTP/1.1")
        if line.method == b"CONNECT" or not (line.target.startswith(b"/") or line.target == b"*"):
            raise FramingError("the request target is not a path: this is no forward proxy")
        fields = self._pattern.fields(head)
        return Request(head, line, fields, framing.judge_request_head(head, line, fields))

    def _take_body(self, data: bytes, missing: int) -> bytes:
        """Take more of a body; return what follows it."""
        chunks = self._chunks
        if chunks is not None:
            body, used = chunks.feed(data)
            done = chunks.done
        else:
            body = data[:missing]
            used = len(body)
            self._length = missing - used
            done = self._length == 0
        if done:
            self._length = None
            self._chunks = None
        exchange = self.exchange
        if exchange is not None and body:
            exchange.request_body(body)
        if exchange is not None and done and self.exchange is exchange:
            exchange.request_end(chunks.trailers if chunks is not None else [])
        return data[used:]


def plain_answer(
    status: int,
    body: bytes,
    *,
    content_type: bytes,
    close: bool,
    fields: bytes = b"",
    head_only: bool = False,
) -> bytes:
    """Return an answer of the proxy's own."""
    head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n" % (
        status,
        _REASONS.get(status, b""),
        content_type,
        len(body),
        fields,
        b"Connection: close\r\n" if close else b"",
    )
    return head if head_only else head + body


def error_answer(
    status: int, message: str, error_type: str, *, close: bool, head_only: bool = False
) -> bytes:
    """Return an error in OpenAI's shape; `X-Meter-Error` tells that it is the proxy's own."""
    error = {"message": f"openai-meter: {message}", "type": error_type, "param": None, "code": None}
    return plain_answer(
        status,
        msgspec.json.encode({"error": error}),
        content_type=b"application/json",
        close=close,
        fields=b"X-Meter-Error: %b\r\n" % error_type.encode(),
        head_only=head_only,
    )
