"""A real worker in the test's own loop, and a client that speaks bytes."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from proxy.app import Worker
from proxy.assembly import LogCall
from proxy.core.model import Closing, Opening, Record
from proxy.core.records import scan
from proxy.journal import JournalWriter
from proxy.listening import open_sockets
from proxy.settings import Settings
from proxy.values import Address
from tests.fakes.upstream import reset


@dataclass(slots=True)
class Running:
    """A worker that listens on `port`, and its journal."""

    worker: Worker
    port: int
    journal: Path
    lines: list[dict[str, object]]
    logged: Sequence[Mapping[str, Any]]

    @property
    def faults(self) -> list[BaseException]:
        """Return the faults of our own that were logged."""
        return [entry["exc_info"] for entry in self.logged if "exc_info" in entry]

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def records(self) -> list[Record]:
        """Return what the journal holds."""
        found: list[Record] = []
        for path in sorted(self.journal.glob("*.journal")):
            data = path.read_bytes()
            found += scan(data, limit=1_000_000, final=True).records
        return found

    def openings(self) -> list[Opening]:
        """Return the openings in the journal."""
        return [record for record in self.records() if isinstance(record, Opening)]

    def closings(self) -> list[Closing]:
        """Return the closings in the journal."""
        return [record for record in self.records() if isinstance(record, Closing)]

    async def closing(self) -> Closing:
        """Wait for one closing, and return it."""
        return (await self.wait_for_closings(1))[0]

    async def closed_once(self, outcome: str) -> Closing:
        """Wait for the one closing, and look at its outcome."""
        closing = await self.closing()
        await asyncio.sleep(0.02)
        assert len(await asyncio.to_thread(self.closings)) == 1
        assert closing.outcome == outcome
        return closing

    async def wait_for_closings(self, count: int) -> list[Closing]:
        """Wait until the journal holds so many closings."""
        async with asyncio.timeout(10):
            while len(found := await asyncio.to_thread(self.closings)) < count:
                await asyncio.sleep(0.01)
        return found


@asynccontextmanager
async def running_worker(
    directory: Path,
    upstream_url: str,
    *,
    faults: int | None = 0,
    log_call: LogCall | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Run a worker until the block ends, then drain it; as many faults as told are logged."""
    chosen = await asyncio.to_thread(
        Settings,
        data_dir=directory,
        upstream_url=upstream_url,
        listen=Address("127.0.0.1", 0),
        drain_seconds=settings.pop("drain_seconds", 0.5),
        **settings,
    )
    lines: list[dict[str, object]] = []
    journal = await asyncio.to_thread(JournalWriter, directory / "journal", name="w")
    listener = open_sockets(chosen.listen, 1, setting="METER_LISTEN")[0]
    port = int(listener.getsockname()[1])
    worker = Worker(
        chosen,
        journal=journal,
        name="w",
        log_call=log_call or (lambda facts: lines.append({**facts})),
    )
    task = asyncio.get_running_loop().create_task(worker.run(listener))
    with capture_logs() as logged:
        running = Running(worker, port, directory / "journal", lines, logged)
        try:
            yield running
        finally:
            worker.stop()
            await task
            await asyncio.to_thread(journal.close)
    if faults is not None and len(running.faults) != faults:
        raise running.faults[0]


class Wire:
    """A client that sends and receives bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, port: int, *, tls: ssl.SSLContext | None = None) -> "Wire":
        """Connect."""
        name = "127.0.0.1" if tls else None
        return cls(
            *await asyncio.open_connection(
                "127.0.0.1", port, limit=2**26, ssl=tls, server_hostname=name
            )
        )

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        """Return the next head."""
        async with asyncio.timeout(10):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, count: int) -> bytes:
        """Return so many bytes."""
        async with asyncio.timeout(30):
            return await self.reader.readexactly(count)

    async def some(self) -> bytes:
        """Return what comes next."""
        async with asyncio.timeout(10):
            return await self.reader.read(65536)

    async def until(self, mark: bytes) -> bytes:
        """Return everything up to a mark."""
        async with asyncio.timeout(10):
            return await self.reader.readuntil(mark)

    async def rest(self) -> bytes:
        """Return everything until the other side closes."""
        async with asyncio.timeout(10):
            return await self.reader.read()

    async def answer(self) -> tuple[bytes, bytes]:
        """Return a head and a body with Content-Length."""
        head = await self.head()
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return head, await self.exactly(length)

    async def close(self) -> None:
        """Close, and forget what the other side thinks of it."""
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Drop the connection with a reset."""
        reset(self.writer)


async def roundtrip(port: int, request: bytes) -> bytes:
    """Send a request that ends its connection, and return everything that comes back."""
    wire = await Wire.to(port)
    await wire.send(request)
    data = await wire.rest()
    await wire.close()
    return data
