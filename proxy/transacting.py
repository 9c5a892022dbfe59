"""Do transactions, one at a time, over a connection that is made again after a loss.

A transaction that lost against another one is done again; what else goes wrong is for the caller to
know, as an error of ours, and the connection is given up.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from proxy.database import connect, translated
from proxy.errors import DatabaseUnreachableError

FAULTS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
_ATTEMPTS = 6

_T = TypeVar("_T")


class Transactions:
    """One writer's transactions."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def do(self, work: Callable[[asyncpg.Connection], Awaitable[_T]]) -> _T:
        """Do one transaction's work, and again if it lost against another one's."""
        async with self._turn:
            for attempt in range(_ATTEMPTS):
                try:
                    return await work(await self._connected())
                except FAULTS as exc:
                    if not _is_lost_race(exc):
                        self._drop()
                        raise translated(exc, self._dsn) from exc
                    await asyncio.sleep(0.01 * 2**attempt)
                except BaseException:
                    self._drop()
                    raise
        raise DatabaseUnreachableError(f"{_ATTEMPTS} transactions lost against others: try again")

    async def close(self) -> None:
        """Give the connection back; a later transaction connects again."""
        async with self._turn:
            self._drop()

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _is_lost_race(exc: Exception) -> bool:
    """Return whether another transaction was in the way: the same again will do."""
    if isinstance(exc, asyncpg.CheckViolationError):
        # A month got its partition between the planning of a row and its writing; not one of the
        # checks of schema.sql, which have names.
        return not exc.constraint_name
    return isinstance(exc, (asyncpg.DeadlockDetectedError, asyncpg.SerializationError))
