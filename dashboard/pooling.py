"""The connections to the ledger: a small pool, whose statements stay prepared where they can.

A statement that stays prepared is not parsed again, and is planned once where one plan is as good
for all values as one for these. It belongs to a connection of the server: behind a pooler such as
pgbouncer the next transaction may have another one, so there nothing is kept.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg

from dashboard.errors import DatabaseUnavailableError
from dashboard.hands import Connection, unavailable

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 300.0
MOST_PREPARED = 60  # statements a connection; their plans take memory of the server's

# What is said of a statement that another connection has, or that was prepared for another schema.
_STALE = (
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
)


class Pool:
    """Connections to one database, made when they are needed and closed when they are not."""

    def __init__(self, dsn: str, *, connections: int) -> None:
        self._dsn = dsn
        self._connections = connections
        self._opening = asyncio.Lock()
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[Connection]:
        """Take a connection; raise DatabaseUnavailableError where there is none to be had."""
        try:
            async with self._opening:
                if self._pool is None:
                    self._pool = await self._opened()
                pool = self._pool
            held = await pool.acquire(timeout=CONNECT_SECONDS)
        except ValueError as exc:  # of an address that cannot be read; its text may hold a password
            raise DatabaseUnavailableError(cause="METER_DATABASE_URL cannot be read") from exc
        except OSError as exc:
            raise unavailable(exc) from exc
        try:
            yield held
        except _STALE:
            await self.close()  # and look again who stands in between
            raise
        finally:
            await pool.release(held)

    async def close(self) -> None:
        """Give all connections back."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    async def _opened(self) -> "asyncpg.Pool[asyncpg.Record]":
        return await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=self._connections,
            max_inactive_connection_lifetime=IDLE_SECONDS,
            timeout=CONNECT_SECONDS,
            statement_cache_size=MOST_PREPARED if await self._is_the_servers_own() else 0,
            reset=_nothing,
        )

    async def _is_the_servers_own(self) -> bool:
        """Whether a connection is one to a process of Postgres: a pooler says another number."""
        connection = await asyncpg.connect(
            self._dsn, timeout=CONNECT_SECONDS, command_timeout=CONNECT_SECONDS,
            statement_cache_size=0,
        )  # fmt: skip
        try:
            number = await connection.fetchval("SELECT pg_backend_pid()")
            return bool(number == connection.get_server_pid())
        finally:
            await connection.close(timeout=CONNECT_SECONDS)


async def _nothing(_connection: object) -> None:
    """Leave a connection as it is: nothing outlives a transaction but what is prepared."""
