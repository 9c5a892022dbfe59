"""A recorder at work within a test, and the ledger as it fills."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from proxy.database import prepare
from proxy.ledger import Ledger
from proxy.pricefile import PriceFile
from proxy.recording import Recorder


def now() -> datetime:
    """Return the time, as the recorder's process does."""
    return datetime.fromtimestamp(time.time(), UTC)


@asynccontextmanager
async def recorder_at_work(
    directory: Path,
    dsn: str,
    prices: PriceFile,
    *,
    clock: Callable[[], datetime] = now,
    batch_records: int = 2000,
    ledger_type: type[Ledger] = Ledger,
    **options: Any,
) -> AsyncIterator[Recorder]:
    """Run a recorder; at the end tell it to stop and wait until it has."""
    stop = asyncio.Event()
    ledger = ledger_type(dsn, report_timezone="UTC")

    async def begin() -> None:
        await prepare(dsn)

    def make() -> Recorder:
        return Recorder(
            directory,
            ledger,
            prices,
            clock,
            stop,
            begin=begin,
            batch_records=batch_records,
            **options,
        )

    recorder = await asyncio.to_thread(make)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.run())
        try:
            yield recorder
        finally:
            stop.set()
    await ledger.close()


async def rows_of(dsn: str) -> list[asyncpg.Record]:
    """Return the ledger, oldest call first."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(
            "SELECT event_id, user_id, outcome, usage_source, prompt_tokens, cost_usd,"
            " unpriced_reason, usage_problem, raw_usage, catalog_version"
            " FROM user_api_usage ORDER BY event_id"
        )
    finally:
        await connection.close()


async def rows_when(dsn: str, count: int, *, seconds: float = 10.0) -> list[asyncpg.Record]:
    """Return the ledger as soon as it has that many rows."""
    async with asyncio.timeout(seconds):
        while len(rows := await rows_of(dsn)) < count:
            await asyncio.sleep(0.02)
    return rows


async def until(claim: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Return as soon as the claim holds."""
    async with asyncio.timeout(seconds):
        while not claim():
            await asyncio.sleep(0.02)
