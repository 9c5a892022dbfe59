"""The recorder's process: its lock, its signals, and the parts that `recording` is given.

One recorder per data directory. A second one waits until the first is gone, so that it can stand
by; it says so once.
"""

import asyncio
import gc
import os
import signal
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import structlog
import uvloop

from proxy.database import prepare
from proxy.errors import ConfigurationError, ReportTimezoneError
from proxy.ledger import Ledger
from proxy.pricefile import PriceFile
from proxy.recording import Recorder
from proxy.resources import resource
from proxy.rollups import findings
from proxy.settings import Settings
from proxy.waiting import claim

_log = structlog.get_logger()


def run_recorder(settings: Settings) -> None:
    """Record until SIGTERM or SIGINT; wait while another recorder has the data directory."""
    # A batch is thousands of objects, none of them in a cycle: looking through all of them, again
    # and again, took a seventh of the time.
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    uvloop.run(_run(settings))


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # one may have come already
    lock = await _claimed(settings.data_dir, stop)
    if lock is None:
        return
    try:
        await _record(settings, stop)
    finally:
        os.close(lock)


async def _claimed(directory: Path, stop: asyncio.Event) -> int | None:
    """Return the lock of the data directory; None: it was time to stop before it was free."""
    try:
        await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
        return await claim(directory / "recorder.lock", stop)
    except OSError as exc:
        raise ConfigurationError(
            f"METER_DATA_DIR is '{directory}': {exc.strerror}; "
            "expected a directory that this user may write to"
        ) from exc


async def _record(settings: Settings, stop: asyncio.Event) -> None:
    dsn = settings.database_url
    if dsn is None:
        raise ConfigurationError("METER_DATABASE_URL is not set: the recorder needs a Postgres")
    ledger = Ledger(dsn, report_timezone=settings.report_timezone)

    async def begin() -> None:
        await prepare(dsn)
        try:
            await ledger.set_report_timezone()
        except ReportTimezoneError as exc:  # days begin where they did; calls are worth more
            _log.error("report time zone not changed", problem=str(exc))

    def make() -> Recorder:
        prices = PriceFile(settings.pricing_file or resource("pricing.yaml"))
        check = partial(findings, dsn)
        return Recorder(settings.data_dir, ledger, prices, _now, stop, begin=begin, check=check)

    try:
        await (await asyncio.to_thread(make)).run()
    finally:
        await ledger.close()


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)
