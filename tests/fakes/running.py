"""Parts of the proxy as they run in earnest: a worker with a clock of its own, and a recorder.

For all of it behind one command see `serving`.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from proxy.app import Worker
from proxy.journal import JournalWriter
from proxy.listening import open_sockets
from proxy.settings import Settings
from proxy.values import Address

LEAVE_SECONDS = 30
PRICED_AT = datetime(2026, 11, 22, 12, tzinfo=UTC)  # the day of the costs that tests expect


@dataclass(frozen=True, slots=True)
class Metering:
    """A worker that listens on `port`, and the ledger that its calls end in."""

    port: int
    dsn: str

    @property
    def url(self) -> str:
        """Its base URL, without /v1."""
        return f"http://127.0.0.1:{self.port}"

    async def rows(self, count: int) -> list[dict[str, Any]]:
        """Return the rows of the ledger, as soon as there are so many, in the order of calls."""
        await until_rows(self.dsn, count)
        return await ledger_rows(self.dsn)


def reference_clock() -> int:
    """Return always the same moment, whose prices never change, in nanoseconds."""
    return int(PRICED_AT.timestamp()) * 10**9


@asynccontextmanager
async def metering(
    directory: Path, upstream_url: str, dsn: str, **settings: Any
) -> AsyncIterator[Metering]:
    """Run a worker, to whom it is always the same day, in this loop and a recorder beside it."""
    chosen = await asyncio.to_thread(
        Settings,
        data_dir=directory,
        upstream_url=upstream_url,
        listen=Address("127.0.0.1", 0),
        drain_seconds=1,
        **settings,
    )
    journal = await asyncio.to_thread(JournalWriter, directory / "journal", name="w")
    listener = open_sockets(chosen.listen, 1, setting="METER_LISTEN")[0]
    port = int(listener.getsockname()[1])
    worker = Worker(chosen, journal=journal, name="w", log_call=None, clock_ns=reference_clock)
    with recording(directory, dsn, chosen.pricing_file):
        task = asyncio.get_running_loop().create_task(worker.run(listener))
        try:
            yield Metering(port, dsn)
        finally:
            worker.stop()
            await task
            await asyncio.to_thread(journal.close)


@contextmanager
def recording(directory: Path, dsn: str, prices: Path | None = None) -> Iterator[int]:
    """Run a recorder; its log goes to the test's own output."""
    environment = {name: value for name, value in os.environ.items() if name[:6] != "METER_"}
    environment |= {"METER_DATA_DIR": str(directory), "METER_DATABASE_URL": dsn}
    if prices is not None:
        environment["METER_PRICING_FILE"] = str(prices)
    command = [sys.executable, "-m", "proxy", "recorder"]
    process = subprocess.Popen(command, env=environment)  # noqa: S603 - our own command
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def ledger_rows(dsn: str) -> list[dict[str, Any]]:
    """Return all rows of the ledger, in the order of calls."""
    return await fetch(dsn, "SELECT * FROM user_api_usage ORDER BY created_at, event_id")


async def fetch(dsn: str, query: str, *values: object) -> list[dict[str, Any]]:
    """Return what a query finds."""
    connection = await asyncpg.connect(dsn)
    try:
        return [dict(row) for row in await connection.fetch(query, *values)]
    finally:
        await connection.close()


async def until_rows(dsn: str, count: int, *, seconds: float = 60) -> None:
    """Wait until the ledger has so many rows; fail if it comes to have more."""
    connection, found = await asyncpg.connect(dsn), 0
    try:
        async with asyncio.timeout(seconds):
            while (
                found := await connection.fetchval("SELECT count(*) FROM user_api_usage")
            ) < count:
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{found} rows after {seconds:g} s, {count} expected") from None
    finally:
        await connection.close()
    assert found == count


class Postgres:
    """A Postgres in a process of its own, which a test starts and stops while its loop runs."""

    _PROGRAM = (
        "import sys; from pathlib import Path; from proxy.embedded import EmbeddedPostgres;"
        "server = EmbeddedPostgres(Path(sys.argv[1]), settings={'fsync': 'off'});"
        "print(server.start(), flush=True); sys.stdin.read(); server.stop()"
    )

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> str:
        """Return its DSN, which is the same at every start."""
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-c", self._PROGRAM, str(self._directory))
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        self._process = process
        assert process.stdout is not None
        async with asyncio.timeout(60):
            return (await process.stdout.readline()).decode().strip()

    async def stop(self) -> None:
        """Stop it, and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            async with asyncio.timeout(60):
                await process.communicate(b"")  # the end of its input
