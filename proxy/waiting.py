"""Wait: for a while, for a lock, for a database that comes back; or until it is time to stop."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import structlog

from proxy.durability import lock_file
from proxy.errors import DatabaseError, DatabaseUnreachableError

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 2.0
CLAIM_SECONDS = 1.0

_T = TypeVar("_T")
_log = structlog.get_logger()


class StoppedError(Exception):
    """It is time to leave, and the database is away."""


class Patience:
    """Does what needs a database, however often that takes; knows whether it is there."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.reachable: bool | None = None  # None: not tried yet
        self.problem: str | None = None
        self.failures: dict[str, int] = {}  # how often something failed, by kind
        self._stop = stop

    async def insist(self, action: Callable[[], Awaitable[_T]], *, refusable: bool = False) -> _T:
        """Try until it is done; raise StoppedError where there is no more time for that.

        `refusable`: a database that answers and refuses is no reason to wait, but to raise.
        """
        retry_seconds = FIRST_RETRY_SECONDS
        while True:
            try:
                result = await action()
            except DatabaseError as exc:
                if refusable and not isinstance(exc, DatabaseUnreachableError):
                    raise
                self._lost(exc)
            else:
                self._reached()
                return result
            if self._stop.is_set():
                raise StoppedError
            await pause(self._stop, retry_seconds)
            retry_seconds = min(LAST_RETRY_SECONDS, 2 * retry_seconds)

    def _lost(self, exc: DatabaseError) -> None:
        kind = "unreachable" if isinstance(exc, DatabaseUnreachableError) else "refused"
        self.failures[kind] = self.failures.get(kind, 0) + 1
        self.problem = str(exc)
        if self.reachable is not False:
            _log.warning("database unreachable, calls wait in the journal", problem=self.problem)
        self.reachable = False

    def _reached(self) -> None:
        self.problem = None
        if self.reachable is False:
            _log.info("database reachable again")
        self.reachable = True


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Return after that time, or as soon as it is time to stop."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


async def claim(path: Path, stop: asyncio.Event) -> int | None:
    """Return the lock of a file; None: it was time to stop before the lock was free."""
    said = False
    while True:
        with contextlib.suppress(BlockingIOError):
            return await asyncio.to_thread(lock_file, path)
        if stop.is_set():
            return None
        if not said:
            _log.info("another recorder has the data directory, waiting", path=str(path))
        said = True
        await pause(stop, CLAIM_SECONDS)
