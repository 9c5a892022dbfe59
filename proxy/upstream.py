"""The upstream's side of a link: one answer after another, each handed on as it comes.

A link finds where an answer ends and hands its bytes on as they came; it changes nothing and
retries nothing. What it hands on has been judged first, so a byte behind the end of an answer is
never taken for another one: it ends the link.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

from typing_extensions import override

from proxy import framing
from proxy.core import headers
from proxy.errors import (
    FramingError,
    RelayError,
    UpstreamLostError,
    UpstreamProtocolError,
)
from proxy.framing import AnswerHead
from proxy.reading import Reading

MAX_INTERIM_ANSWERS = 100  # 1xx heads before one final one
FAULT = "a fault in openai-meter ended this call; see its log"


class Caller(Protocol):
    """Who made the call that a link is answering."""

    def connected(self, link: "UpstreamLink") -> None:
        """Take a new connection."""

    def connect_failed(self, error: RelayError) -> None:
        """Learn that no connection could be made."""

    def interim(self, head: headers.Head) -> None:
        """Take a 1xx head other than 101."""

    def switched(self, head: bytes, rest: bytes) -> bytes:
        """Take a 101 head; from here on the link is a tunnel, and the rest comes from it."""

    def tunnelled(self, data: bytes) -> bytes:
        """Take bytes from the tunnel; return those that are to be offered again."""

    def answer(self, head: AnswerHead | None, raw: bytes, body: bytes, *, done: bool) -> None:
        """Take the next part of the answer: its bytes as they came, and the body within them."""

    def upstream_lost(self, error: RelayError) -> None:
        """Learn that the answer will not be completed."""

    def upstream_paused(self) -> None:
        """Stop writing: the upstream does not keep up."""

    def upstream_resumed(self) -> None:
        """Go on writing."""


class Keeper(Protocol):
    """Who has a connection while no call has it."""

    max_head_bytes: int
    report_fault: Callable[[BaseException], None]

    def keep(self, link: "UpstreamLink") -> None:
        """Keep a connection for the next call."""

    def forget(self, link: "UpstreamLink") -> None:
        """Drop a connection that is no more, wherever it is."""


class UpstreamLink(Reading):
    """One connection to the upstream; at most one call at a time."""

    def __init__(self, pool: Keeper) -> None:
        self._pool = pool
        self.caller: Caller | None = None
        self.active = False
        self.request_sent = False
        self.idle_since = 0.0
        self.session_known = False
        self._reset()

    def _reset(self) -> None:
        self._buffer = b""
        self._searched = 0
        self._length: int | None = None
        self._chunks: framing.ChunkedReader | None = None
        self._interim = 0
        self._keep_alive = False
        self._tunnel = False
        self._head_only = False
        self._may_switch = False

    # What the caller does.

    def begin(self, caller: Caller, data: bytes, *, head_only: bool, may_switch: bool) -> None:
        """Send the first bytes of a call; `head_only` for HEAD, `may_switch` for WebSocket."""
        self.caller = caller
        self.request_sent = False
        self.active = True
        self._head_only = head_only
        self._may_switch = may_switch
        self.transport.write(data)

    def write(self, data: bytes) -> None:
        """Send more of the request, or of the tunnel."""
        self.active = True
        self.transport.write(data)

    def abort(self) -> None:
        """Drop the connection at once; nothing more is heard of it."""
        self.caller = None
        self._rest = b""
        self.transport.abort()

    def close(self) -> None:
        """Close the connection behind what was sent; nothing more is heard of it."""
        self.caller = None
        self._rest = b""
        self.transport.close()

    # What the transport does.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self.active = True
        caller, chunks = self.caller, self._chunks
        if caller is None:  # an idle upstream that speaks cannot be trusted with a call
            self._pool.forget(self)
            self.transport.abort()
            return
        try:
            if chunks is not None:
                body = chunks.plain(data)
                if body is not None:
                    caller.answer(None, data, body, done=False)
                else:
                    self._take_body(None, data, caller)
            elif self._tunnel:
                self._offer(data, caller.tunnelled)
            elif self._length is None:
                self._take_heads(data, caller)
            else:
                self._take_body(None, data, caller)
        except FramingError as exc:
            self._lose(UpstreamProtocolError(f"the upstream's answer is not valid HTTP: {exc}"))
        except RelayError as exc:
            self._lose(exc)
        except Exception as exc:  # noqa: BLE001 (the relay's last line: a fault ends one call)
            self._pool.report_fault(exc)
            self._lose(UpstreamLostError(FAULT))

    @override
    def eof_received(self) -> None:
        """Take it for the end, whatever of the request has not been taken."""
        if self.caller is not None:
            self._ended(None)
            self.transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self)
        self._ended(exc)

    @override
    def pause_writing(self) -> None:
        if self.caller is not None:
            self.caller.upstream_paused()

    @override
    def resume_writing(self) -> None:
        if self.caller is not None:
            self.caller.upstream_resumed()

    # How an answer is taken.

    def _take_heads(self, data: bytes, caller: Caller) -> None:
        """Take 1xx heads and the final one, and what follows it."""
        data = self._buffer + data
        while data:
            end = framing.head_end(data, self._searched, self._pool.max_head_bytes)
            if end < 0:
                break
            raw, data = data[:end], data[end:]
            self._searched = 0
            head = framing.judged_answer(raw, head_only=self._head_only)
            if head.status >= 200:  # noqa: PLR2004
                self._buffer = b""
                self._length = head.length
                self._keep_alive = head.keeps_alive
                if head.length == framing.CHUNKED:
                    self._chunks = framing.ChunkedReader()
                    head.trailers = self._chunks.trailers
                self._take_body(head, data, caller)
                return
            if head.status == 101:  # noqa: PLR2004
                self._switch(raw, data, caller)
                return
            self._interim += 1
            if self._interim > MAX_INTERIM_ANSWERS:
                raise FramingError("too many 1xx answers")
            caller.interim(head.head)
        self._buffer = data
        self._searched = len(data)

    def _switch(self, raw: bytes, rest: bytes, caller: Caller) -> None:
        if not self._may_switch:
            raise FramingError("a switch of protocols that nobody asked for")
        self._tunnel = True
        self._buffer = b""
        self._offer(rest, partial(caller.switched, raw))

    def _take_body(self, head: AnswerHead | None, data: bytes, caller: Caller) -> None:
        length, chunks = self._length, self._chunks
        done = False
        body = raw = data
        if chunks is not None:
            if data:
                body, used = chunks.feed(data)
                done = chunks.done
                raw = data[:used]
        elif length is not None and length >= 0:
            body = raw = data[:length]
            self._length = length - len(raw)
            done = self._length == 0
        caller.answer(head, raw, body, done=done)
        if done:
            self._release(clean=len(raw) == len(data))

    def _release(self, *, clean: bool) -> None:
        """Give the connection back to the pool, or end it where it cannot be used again."""
        self.caller = None
        transport = self.transport
        unsent = not self.request_sent or transport.get_write_buffer_size() > 0
        if clean and self._keep_alive and not unsent and not transport.is_closing():
            self.resume()
            self._reset()
            self._pool.keep(self)
        else:
            transport.abort()

    def _ended(self, exc: Exception | None) -> None:
        """Tell the caller that nothing more will come: a whole answer, or the loss of it."""
        while self._rest and self.caller is not None:
            self.data_received(b"")
        caller = self.caller
        if caller is None:
            return
        if exc is not None or not (self._length == framing.UNTIL_CLOSE or self._tunnel):
            self._lose(UpstreamLostError())
            return
        try:
            caller.answer(None, b"", b"", done=True)
        except RelayError as error:
            self._lose(error)
        except Exception as fault:  # noqa: BLE001 (as above)
            self._pool.report_fault(fault)
            self._lose(UpstreamLostError(FAULT))
        self.caller = None

    def _lose(self, error: RelayError) -> None:
        caller, self.caller = self.caller, None
        self.transport.abort()
        if caller is not None:
            caller.upstream_lost(error)
