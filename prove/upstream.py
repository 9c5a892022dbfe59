"""An upstream that keeps its own count: what it was asked, what it answered, what it cut off.

It works on bytes, so that nothing is counted as answered that did not go out to its end.
"""

import asyncio
import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from prove.calls import Call, Kind, call, expected, pieces, response
from tests.fakes.upstream import reset

QUIET_SECONDS = 120.0
_CALL = re.compile(rb"(?im)^x-call: *(\d+)")
_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")
_POLLED = re.compile(rb"GET /v1/responses/resp_([0-9a-f]+) ")


@dataclass(slots=True)
class Upstream:
    """The upstream on a free port of 127.0.0.1."""

    seed: int
    asked: list[int] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)
    cut: set[int] = field(default_factory=set)  # by us, on purpose
    over: set[int] = field(default_factory=set)  # background responses that are done
    told: set[int] = field(default_factory=set)  # those of them of which somebody was told so
    port: int = 0
    _server: asyncio.Server | None = None
    _links: dict[asyncio.StreamWriter, int | None] = field(default_factory=dict)

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening, and break off what is left."""
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._links):
            writer.transport.abort()
        await asyncio.sleep(0.1)

    def reset_all(self) -> int:
        """Reset every connection; return how many calls were under way on them."""
        busy = [number for number in self._links.values() if number is not None]
        self.cut.update(busy)
        for writer in tuple(self._links):
            if not writer.is_closing():
                reset(writer)
        return len(busy)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._links[writer] = None
        with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            while not writer.is_closing():
                async with asyncio.timeout(QUIET_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
                await self._answer(head, body, writer)
        self._links.pop(writer, None)
        writer.close()

    async def _answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        found = _CALL.search(head)
        assert found is not None, head
        number = int(found[1])
        self.asked.append(number)
        self._links[writer] = number
        polled = _POLLED.match(head)
        if polled is not None:
            await self._show(int(polled[1], 16), writer)
        else:
            await self._make(call(self.seed, number), body, writer)
        self.answered.add(number)
        self._links[writer] = None

    async def _make(self, asked: Call, body: bytes, writer: asyncio.StreamWriter) -> None:
        options = json.loads(body).get("stream_options") or {}
        parts = pieces(asked, with_usage=options.get("include_usage", False))
        if asked.kind is Kind.CUT:
            await asyncio.sleep(asked.pause)
            self.cut.add(asked.number)
            if asked.number % 2:
                writer.write(_head(asked, len(parts[0])) + parts[0][:20])
                await writer.drain()
                await asyncio.sleep(0.01)
            reset(writer)
            raise ConnectionResetError
        if len(parts) == 1:
            await asyncio.sleep(asked.pause)
            writer.write(_head(asked, len(parts[0])) + parts[0])
        else:
            writer.write(_head(asked, None))
            for part in parts:
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                await writer.drain()
                await asyncio.sleep(asked.pause / len(parts))
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        if writer.is_closing():
            raise ConnectionResetError

    async def _show(self, number: int, writer: asyncio.StreamWriter) -> None:
        made = call(self.seed, number)
        is_over = number in self.over
        data = json.dumps(response(made, "completed" if is_over else "in_progress")).encode()
        writer.write(_head(made, len(data)) + data)
        await writer.drain()
        if is_over:
            self.told.add(number)


def right(asked: Call, status: int, body: bytes) -> bool:
    """Tell whether a client got what the upstream says."""
    return status == asked.status and body == expected(asked)


def _head(asked: Call, length: int | None) -> bytes:
    status = {200: b"200 OK", 429: b"429 Too Many Requests"}.get(asked.status)
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    kind = b"text/event-stream" if length is None else b"application/json"
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nX-Request-Id: req_%d\r\n%b\r\n\r\n" % (
        status or b"%d Made Up" % asked.status,
        kind,
        asked.number,
        framing,
    )
