"""The past of a demonstration: a worker like any other, but for the time that it is told.

It writes into the journal of the ledger that is being shown. Its calls bear the moments that were
planned, in their order; two that arrive together may have changed places.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from proxy.app import Worker
from proxy.journal import JournalWriter
from proxy.listening import bound_port, open_sockets
from proxy.settings import Settings

NAME = "past"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def clock(moments: Sequence[datetime]) -> Callable[[], int]:
    """Return a clock, in nanoseconds, that shows each moment once, and the last one ever after."""
    coming = iter(moments)
    shown = moments[-1]

    def read() -> int:
        return (next(coming, shown) - _EPOCH) // timedelta(microseconds=1) * 1000

    return read


@asynccontextmanager
async def working(settings: Settings, moments: Sequence[datetime]) -> AsyncIterator[str]:
    """Run a worker in this loop and return its URL; it takes over the signals of the process."""
    journal = await asyncio.to_thread(
        JournalWriter, settings.data_dir / "journal", name=NAME, sync_seconds=1.0
    )
    listener = open_sockets(settings.listen, 1, setting="METER_LISTEN")[0]
    url = f"http://127.0.0.1:{bound_port(listener)}"
    worker = Worker(settings, journal=journal, name=NAME, log_call=None, clock_ns=clock(moments))
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(worker.run(listener))
            try:
                yield url
            finally:
                worker.stop()
                await running
    finally:
        await asyncio.to_thread(journal.close)
