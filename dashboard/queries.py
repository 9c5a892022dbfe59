"""Ask the ledger: a read-only snapshot, and what can be asked of it.

Each report is one short read-only transaction with the rights of meter_dashboard, where the
database lets us take that role on. Connections are kept in a small pool, but nothing outlives the
transaction, so that pgbouncer may stand in between.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import asyncpg

from dashboard import selects
from dashboard.connections import Connection, answering, unavailable
from dashboard.errors import DatabaseUnavailableError, TooBusyError, TooSlowError
from dashboard.report import Health, Stats
from dashboard.snapshot import EXPORT_SECONDS, Snapshot
from dashboard.summing import Kept

MOST_CONNECTIONS = 4
CONNECT_SECONDS = 5.0
ROOM_SECONDS = 20.0  # to wait for others who ask
STATEMENT_SECONDS = 10.0
IDLE_SECONDS = 60.0
NAMED_SINCE = timedelta(days=31)


class Ledger:
    """Reads one database."""

    def __init__(
        self, dsn: str, *, connections: int = MOST_CONNECTIONS, room_seconds: float = ROOM_SECONDS
    ) -> None:
        self._dsn = dsn
        self._room_seconds = room_seconds
        self._connections = connections
        self._room = asyncio.Semaphore(connections)
        self._second_hands = asyncio.Semaphore(max(1, connections // 3))
        self._opening = asyncio.Lock()
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._kept = Kept()

    async def health(self) -> Health:
        """Return how fresh the ledger is."""
        async with self.snapshot() as snapshot:
            return Health(newest_call=snapshot.newest_call)

    async def watermark(self) -> tuple[datetime | None, int, int | None, Decimal | None]:
        """Return what differs as soon as a row has come; the newest call first."""
        async with self._transaction() as connection:
            with answering():
                row = await connection.fetchrow(selects.WATERMARK)
            if row is None:
                return None, 0, None, None
            return row["last_call"], row["calls"], row["total_tokens"], row["cost_usd"]

    async def names(self, *, at_most: int) -> dict[str, tuple[str, ...]]:
        """Return what a filter may be about, by parameter; of each the most frequent."""
        async with self.snapshot() as snapshot:
            if snapshot.newest_call is None:
                return {}
            return await snapshot.names(snapshot.newest_call - NAMED_SINCE, at_most=at_most)

    async def stats(self, at: datetime) -> Stats:
        """Return the sums of today, of this month and of all time, as of one moment."""
        async with self.snapshot() as snapshot:
            today = at.astimezone(snapshot.report_zone).date()
            return Stats(
                as_of=at,
                newest_call=snapshot.newest_call,
                report_timezone=snapshot.report_timezone,
                periods=await snapshot.periods(today),
            )

    @contextlib.asynccontextmanager
    async def snapshot(self, *, seconds: float = STATEMENT_SECONDS) -> AsyncIterator["Snapshot"]:
        """Open a read-only transaction; what is read in it is of one moment."""
        async with (
            self._transaction(seconds) as connection,
            contextlib.AsyncExitStack() as others,
        ):
            with answering():
                status = await connection.fetchrow(selects.STATUS)
            if status is None:
                raise DatabaseUnavailableError("The ledger is empty where it never should be.")
            zone = await asyncio.to_thread(ZoneInfo, status["report_timezone"])
            snapshot = Snapshot(
                connection,
                newest_call=status["last_call"],
                report_zone=zone,
                kept=self._kept,
            )

            async def another() -> "Connection | None":
                return await self._another(snapshot, others, seconds)

            snapshot.another = another
            yield snapshot

    @contextlib.asynccontextmanager
    async def copying(self) -> AsyncIterator["Snapshot"]:
        """Open a snapshot that lasts as long as a large file takes."""
        async with self.snapshot(seconds=EXPORT_SECONDS) as snapshot:
            yield snapshot

    @contextlib.asynccontextmanager
    async def beside(self, snapshot: "Snapshot") -> AsyncIterator["Snapshot | None"]:
        """Open another transaction that sees the same; None: no connection can be had at once.

        Most connections are kept for the first one of a file.
        """
        async with contextlib.AsyncExitStack() as stack:
            connection = await self._another(snapshot, stack, EXPORT_SECONDS)
            if connection is None:
                yield None
                return
            yield Snapshot(
                connection,
                newest_call=snapshot.newest_call,
                report_zone=snapshot.report_zone,
                kept=self._kept,
            )

    async def _another(
        self, snapshot: "Snapshot", stack: contextlib.AsyncExitStack, seconds: float
    ) -> "Connection | None":
        if self._room.locked() or self._second_hands.locked():
            return None
        name = await snapshot.exported()
        if self._room.locked() or self._second_hands.locked():  # so neither is waited for below
            return None
        try:
            await stack.enter_async_context(self._second_hands)
            return await stack.enter_async_context(self._transaction(seconds, sees=name))
        except DatabaseUnavailableError:
            return None

    async def close(self) -> None:
        """Give all connections back."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    @contextlib.asynccontextmanager
    async def _transaction(
        self, seconds: float = STATEMENT_SECONDS, *, sees: str | None = None
    ) -> AsyncIterator[Connection]:
        """Take a connection and begin; translate what the library raises.

        `sees` is the name of a snapshot that another transaction has exported.
        """
        try:
            async with (
                self._place(),
                self._connection() as held,
                held.transaction(isolation="repeatable_read", readonly=True),
            ):
                with answering():
                    if sees is not None:  # no parameter may stand there; the name is Postgres' own
                        await held.execute(f"SET TRANSACTION SNAPSHOT '{sees}'")
                    await held.fetchrow(selects.BEGIN, str(int(seconds * 1000)))
                yield held
        except asyncpg.QueryCanceledError as exc:
            raise TooSlowError from exc
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError) as exc:
            raise DatabaseUnavailableError("The ledger has not been made yet.") from exc
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            raise unavailable(exc) from exc

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Wait, within bounds, until few enough are asking."""
        try:
            async with asyncio.timeout(self._room_seconds):
                await self._room.acquire()
        except TimeoutError as exc:
            raise TooBusyError from exc
        try:
            yield
        finally:
            self._room.release()

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """Take a connection of the pool."""
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=self._connections,
                    max_inactive_connection_lifetime=IDLE_SECONDS,
                    timeout=CONNECT_SECONDS,
                    statement_cache_size=0,
                    reset=_nothing,
                )
        try:
            held = await self._pool.acquire(timeout=CONNECT_SECONDS)
        except ValueError as exc:  # of an address that cannot be read; its text may hold a password
            raise DatabaseUnavailableError(cause="METER_DATABASE_URL cannot be read") from exc
        except OSError as exc:
            raise unavailable(exc) from exc
        try:
            yield held
        finally:
            await self._pool.release(held)


async def _nothing(_connection: object) -> None:
    """Leave a connection as it is: nothing outlives a transaction."""
