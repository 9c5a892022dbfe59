"""A scriptable upstream on bytes: it keeps what it received and says exactly what it is told to."""

import asyncio
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass(slots=True)
class Call:
    """One request as it came, and the way to answer it."""

    head: bytes
    body: bytes  # without transfer coding
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    raw_body: bytes = b""  # with it
    connection: int = 0

    @property
    def first_line(self) -> bytes:
        """The request line."""
        return self.head.partition(b"\r\n")[0]

    @property
    def lines(self) -> list[bytes]:
        """The header lines, as they came."""
        return self.head.split(b"\r\n")[1:-2]

    def header(self, name: str) -> bytes | None:
        """Return the first value of a header field."""
        for line in self.lines:
            key, _, value = line.partition(b":")
            if key.lower() == name.lower().encode():
                return value.strip()
        return None

    async def send(self, data: bytes) -> None:
        """Send bytes and wait until they are on their way."""
        self.writer.write(data)
        await self.writer.drain()

    @property
    def chunked(self) -> bool:
        """Whether the body came in chunks."""
        return (self.header("transfer-encoding") or b"").lower() == b"chunked"

    def close(self) -> None:
        """Close the connection cleanly."""
        self.writer.close()

    def reset(self) -> None:
        """Drop the connection with a reset."""
        reset(self.writer)

    async def gone(self) -> None:
        """Wait until the other side has gone."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


def reset(writer: asyncio.StreamWriter) -> None:
    """Drop a connection with a reset, whatever is on its way."""
    link = writer.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


Script = Callable[[Call], Awaitable[None]]


async def answer_plainly(call: Call) -> None:
    """Send a small JSON answer."""
    await call.send(PLAIN.removesuffix(b"{}") if call.head.startswith(b"HEAD ") else PLAIN)


def answering(*parts: bytes, pause: float = 0.0, close: bool = False) -> Script:
    """Return a script that sends these parts, a pause apart."""

    async def script(call: Call) -> None:
        for part in parts:
            await call.send(part)
            if pause:
                await asyncio.sleep(pause)
        if close:
            call.close()

    return script


@dataclass(slots=True)
class Upstream:
    """A server on a free port of 127.0.0.1; `script` answers every call."""

    script: Script = answer_plainly
    on_head: Script | None = None  # runs before the body is read, e.g. to say 100 Continue
    read_body: bool = True
    tls: object = None
    calls: list[Call] = field(default_factory=list)
    connections: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, limit=2**26, ssl=self.tls, backlog=1024
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening, and end what is under way."""
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._writers:
            self._writers.pop().transport.abort()
        await asyncio.sleep(0.001)  # so that the connections are gone before the loop is

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        self.connections += 1
        number = self.connections
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            try:
                while not writer.is_closing():
                    call = await self._read(reader, writer, number)
                    self.calls.append(call)
                    await self.script(call)
                    if b"close" in (call.header("connection") or b"").lower():
                        break
            finally:
                self._tasks.discard(task)
                writer.close()

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> Call:
        head = await reader.readuntil(b"\r\n\r\n")
        call = Call(head, b"", reader, writer, connection=number)
        if self.on_head is not None:
            await self.on_head(call)
        if self.read_body:
            await self._read_body(call)
        return call

    async def _read_body(self, call: Call) -> None:
        if call.chunked:
            await _read_chunks(call)
            return
        length = call.header("content-length")
        if length is not None:
            call.body = call.raw_body = await call.reader.readexactly(int(length))


async def _read_chunks(call: Call) -> None:
    data, raw = [], []
    while True:
        line = await call.reader.readuntil(b"\r\n")
        raw.append(line)
        size = int(re.match(rb"[0-9a-fA-F]+", line)[0], 16)  # type: ignore[index]
        if size == 0:
            break
        chunk = await call.reader.readexactly(size + 2)
        raw.append(chunk)
        data.append(chunk[:-2])
    while (line := await call.reader.readuntil(b"\r\n")) != b"\r\n":
        raw.append(line)
    raw.append(line)
    call.body, call.raw_body = b"".join(data), b"".join(raw)
