"""The connections that see one moment of the ledger: who asks takes one, what is urgent first."""

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from enum import IntEnum
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from dashboard.asking import Row
from dashboard.errors import DatabaseUnavailableError

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"


class Priority(IntEnum):
    """Who is answered before whom, where several wait for a connection."""

    FIRST = 0  # much is to be done with the answer
    USUAL = 1
    LAST = 2  # it goes onto the page as it is


class Connections:
    """One connection or several, of which each answers one question at a time."""

    def __init__(self, connection: Connection) -> None:
        self._free = [connection]
        self._waiting: list[tuple[Priority, int, asyncio.Future[Connection]]] = []
        self._asked = itertools.count()
        self.count = 1

    def add(self, connection: Connection) -> None:
        """Take on another connection, which sees the same."""
        self.count += 1
        self._give_back(connection)

    async def fetch(
        self,
        statement: str,
        *values: Any,  # noqa: ANN401 - whatever the statement takes
        priority: Priority = Priority.USUAL,
    ) -> Sequence[Row]:
        """Return the rows of a SELECT; raise DatabaseUnavailableError where the server is away."""
        async with self._taken(priority) as connection:
            with answering():
                return [dict(row) for row in await connection.fetch(statement, *values)]

    @contextlib.asynccontextmanager
    async def _taken(self, priority: Priority) -> AsyncIterator[Connection]:
        if self._free:
            connection = self._free.pop()
        else:
            given = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (priority, next(self._asked), given))
            try:
                connection = await given
            except asyncio.CancelledError:
                if given.done() and not given.cancelled():
                    self._give_back(given.result())
                raise
        try:
            yield connection
        finally:
            self._give_back(connection)

    def _give_back(self, connection: Connection) -> None:
        while self._waiting:
            _, _, given = heapq.heappop(self._waiting)
            if not given.done():  # as it is where whoever waited has been cancelled
                given.set_result(connection)
                return
        self._free.append(connection)


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Translate what is raised while the database is asked; else it is a file's or a client's."""
    try:
        yield
    except OSError as exc:
        raise unavailable(exc) from exc


def unavailable(exc: Exception) -> DatabaseUnavailableError:
    """Return the same as an error of ours; its cause is for the log."""
    return DatabaseUnavailableError(cause=f"{type(exc).__name__}: {exc}")
