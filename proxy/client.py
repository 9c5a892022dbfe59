"""The client's side of a link: requests in, answers out, one exchange at a time.

A link finds where a request ends and refuses what is ambiguous; what a request means is its
exchange's business (`proxy.forwarding`, `proxy.health`). A pipelined request waits, unread, until
the exchange before it is over.
"""

import asyncio
import re
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from typing_extensions import override

from proxy import framing
from proxy.core.plans import RequestPlans
from proxy.errors import FramingError, MeterError
from proxy.framing import Request
from proxy.reading import Reading
from proxy.replies import error_answer

LINGER_SECONDS = 5.0  # how long the rest of a refused request may pause
INVALID_FRAMING = "invalid_request_framing"
MAX_LINGER_SECONDS = 30.0  # and how long it may go on
_BLANK_LINES = re.compile(rb"\A(?:\r\n)+")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a link bears with."""

    max_head_bytes: int = 65536
    head_timeout_seconds: float = 60.0
    idle_timeout_seconds: float = 300.0


class Exchange(Protocol):
    """What a link tells of the request that it is reading."""

    @property
    def answering(self) -> bool:
        """Whether bytes of an answer have gone out."""

    def start(self, body: bytes, *, complete: bool, trailers: framing.Trailers) -> None:
        """Begin: the head is known, and what came of the body with it."""

    def request_body(self, data: bytes) -> None:
        """Take more of the body."""

    def request_end(self, trailers: framing.Trailers) -> None:
        """Learn that the body is over."""

    def request_broken(self, error: FramingError) -> None:
        """Learn that the rest of the body cannot be read."""

    def tunnelled_up(self, data: bytes) -> bytes:
        """Take bytes from the tunnel; return those that are to be offered again."""

    def client_gone(self) -> None:
        """Learn that the client has left."""

    def client_paused(self) -> None:
        """Stop writing: the client does not keep up."""

    def client_resumed(self) -> None:
        """Go on writing."""

    def check(self, now: float) -> None:
        """Look whether something has taken too long."""


class ClientLink(Reading):
    """One connection from a client."""

    def __init__(
        self,
        *,
        begin: Callable[["ClientLink", Request], Exchange],
        plans: RequestPlans,
        limits: Limits,
        links: set["ClientLink"],
        refused: Callable[[MeterError], None],
        report_fault: Callable[[BaseException], None],
    ) -> None:
        """Take what makes an exchange, the register of links, and who hears of refusals."""
        self._begin = begin
        self._plans = plans
        self._limits = limits
        self._links = links
        self._refused = refused
        self._report_fault = report_fault
        self.exchange: Exchange | None = None
        self.active = True
        self.closing = False  # the link ends with the exchange that is under way
        self.half_closed = False  # the client has said all that it will
        self.writing_paused = False
        self._retires = False
        self._lingering = False
        self._tunnel = False
        self._buffer = b""
        self._searched = 0
        self._length: int | None = None  # what is missing of the body; None between requests
        self._chunks: framing.ChunkedReader | None = None
        self._trailers: framing.Trailers = []
        self._since = 0.0
        self._head_since = 0.0
        self._ending_since = 0.0

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
            self._offer(rest, self.exchange.tunnelled_up)

    def finished(self, *, close: bool) -> None:
        """End the exchange; the link goes on to the next request or ends."""
        self.exchange = None
        self.active = True
        if close or self.closing or (self.half_closed and not self._buffer):
            self._end()
        elif self._buffer:
            asyncio.get_running_loop().call_soon(self._advance)
        else:
            self.resume()

    def refuse(self, error: MeterError, *, status: int, error_type: str) -> None:
        """Answer what cannot be relayed, and end the link."""
        self._refused(error)
        self.write(error_answer(status, str(error), error_type, close=True))
        self.exchange = None
        self._end()

    def break_off(self, *, reset: bool) -> None:
        """End the link behind what was sent; with a reset where a clean end would look complete."""
        self.exchange = None
        self.closing = True
        if reset:
            self._end_with_reset()
        if self.transport.get_extra_info("sslcontext") is None:
            self.transport.close()
        else:  # a close would say that all has been sent
            self.transport.abort()

    def drop(self) -> None:
        """End the link at once, so that an incomplete answer is seen to be one."""
        self.exchange = None
        self._end_with_reset()
        self.transport.abort()

    def retire(self) -> None:
        """End the link with the next answer whose head can say so."""
        self._retires = True
        if self.exchange is not None and not self.exchange.answering:
            self.closing = True

    def stop(self) -> None:
        """End the link as soon as nothing is under way."""
        self.closing = True
        if self.exchange is None and not self._lingering:
            self.transport.close()

    def _end(self) -> None:
        """Close, but read on for a while: unread bytes would reset the connection."""
        self.closing = True
        if self._length is None and not self._buffer and not self.take_rest():
            self.transport.close()
            return
        self._lingering = True
        self._buffer = b""
        self._ending_since = asyncio.get_running_loop().time()
        self.resume()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()

    def _end_with_reset(self) -> None:
        if not self.transport.is_closing():
            peer = self.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

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
                self._offer(data, self.exchange.tunnelled_up)
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._advance()

    @override
    def eof_received(self) -> bool:
        """Keep a link open on which only the client's half was closed (RFC 9112 section 9.6)."""
        self.half_closed = True
        if self._tunnel or self._length is not None or self.transport.is_closing():
            return False
        if self.transport.get_extra_info("sslcontext") is not None:
            return False
        if self.exchange is None and self._buffer:
            asyncio.get_running_loop().call_soon(self._advance)
        return self.exchange is not None or bool(self._buffer)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._links.discard(self)
        self.closing = True
        self._buffer = b""
        while self._rest and self.exchange is not None:
            self._offer(b"", self.exchange.tunnelled_up)
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
        elif self._buffer:
            self._advance()

    def check(self, now: float) -> None:
        """Look whether something has taken too long; called about twice a second."""
        if self.active:
            self.active = False
            self._since = now
        if self.reading_paused and _was_reset(self.transport):
            self.transport.abort()  # nobody would hear of it as long as nothing is read
        elif self._lingering:
            if self.idle_seconds(now) > LINGER_SECONDS or (
                now - self._ending_since > MAX_LINGER_SECONDS
            ):
                self.transport.abort()
        elif self.exchange is not None:
            self.exchange.check(now)
        elif self._buffer and not self.writing_paused:
            if now - self._head_since > self._limits.head_timeout_seconds:
                error = FramingError("the request's head did not arrive in time")
                self.refuse(error, status=408, error_type="request_timeout")
        elif self.idle_seconds(now) > self._limits.idle_timeout_seconds:
            if self.transport.is_closing() or self.writing_paused:
                self.transport.abort()  # what was sent last is not taken
            else:
                self.transport.close()

    def idle_seconds(self, now: float) -> float:
        """Return for how long nothing has come from the client, or been taken by it."""
        return now - self._since

    # How a request is taken.

    def _advance(self) -> None:
        data, self._buffer = self._buffer, b""
        try:
            while data and not self._tunnel:
                if self._length is not None:
                    data = self._take_body(data)
                elif self.closing:
                    return
                elif self.exchange is not None or self.writing_paused:
                    self._buffer = data  # pipelined: it waits for its turn
                    self.pause()
                    return
                else:
                    self.resume()
                    data = self._take_head(data)
        except FramingError as exc:
            self._refuse_framing(exc)
        except Exception as exc:  # noqa: BLE001 (the relay's last line: a fault ends one link)
            self._report_fault(exc)
            self.transport.abort()
        else:
            if data and self.exchange is not None:
                self._offer(data, self.exchange.tunnelled_up)
            elif self.half_closed and self.exchange is None:
                self.transport.close()  # what there is of a head will never be one

    def _refuse_framing(self, error: FramingError) -> None:
        exchange = self.exchange
        self._length = 0  # what follows cannot be told apart, and is not read
        if exchange is not None:
            answering = exchange.answering
            exchange.request_broken(error)
            if answering:
                self.drop()
                return
        self.refuse(error, status=error.status, error_type=INVALID_FRAMING)

    def _take_head(self, data: bytes) -> bytes:
        """Take a request's head, with what is here of its body; return what follows."""
        if data.startswith(b"\r\n"):  # RFC 9112 section 2.2
            data = _BLANK_LINES.sub(b"", data, 1)
        end = framing.head_end(data, self._searched, self._limits.max_head_bytes)
        if end < 0:
            if not self._searched:
                self._head_since = asyncio.get_running_loop().time()
            self._buffer = data
            self._searched = len(data)
            return b""
        self._searched = 0
        request = framing.judged_request(data[:end], self._plans)
        length, body = request.length, data[end:]
        if length == len(body):
            rest = b""
        else:
            self._length = length
            if length == framing.CHUNKED:
                self._chunks = framing.ChunkedReader()
            body, rest = self._cut(body)
        exchange = self.exchange = self._begin(self, request)
        self.closing = self.closing or self._retires
        trailers, self._trailers = self._trailers, []
        exchange.start(body, complete=self._length is None, trailers=trailers)
        return rest

    def _cut(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what of the data belongs to the body, and what follows it."""
        chunks, missing = self._chunks, self._length or 0
        if chunks is None:
            self._length = missing - len(data) if missing > len(data) else None
            return data[:missing], data[missing:]
        body, used = chunks.feed(data)
        if chunks.done:
            self._length = self._chunks = None
            self._trailers = framing.judge_trailers(chunks.trailers)
        return body, data[used:]

    def _take_body(self, data: bytes) -> bytes:
        """Take more of a body; return what follows it."""
        body, rest = self._cut(data)
        exchange = self.exchange
        if exchange is not None and body:
            exchange.request_body(body)
        if exchange is not None and self._length is None and self.exchange is exchange:
            trailers, self._trailers = self._trailers, []
            exchange.request_end(trailers)
        return rest


def _was_reset(transport: asyncio.Transport) -> bool:
    """Tell whether the peer has reset the connection; an error is reported unasked."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket"), 0)
    return bool(poll.poll(0))
