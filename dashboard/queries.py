"""SELECTs from the views of schema.sql, rows as dataclasses.

Each report is one short read-only transaction on a connection of its own, with the rights of
meter_dashboard where the database lets us take that role on. Nothing outlives the transaction, so
that pgbouncer may stand in between.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime

import asyncpg

from dashboard.errors import DatabaseUnavailableError
from dashboard.report import Health, Period, Stats

MOST_CONNECTIONS = 4
CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 10.0

_BEGIN = """
SELECT
    set_config('role', coalesce(dashboard_role(), 'none'), true),
    set_config('statement_timeout', $1, true)
"""

_HEALTH = """
SELECT last_call AS newest_call
FROM ledger_status
"""

_STATUS = """
SELECT
    last_call,
    report_timezone,
    ($1::timestamptz AT TIME ZONE report_timezone)::date AS today
FROM ledger_status
"""

# Without calls a sum is 0; with calls it is NULL as long as none of them is known.
_PERIODS = """
WITH period (place, name, since) AS (
    VALUES
        (1, 'today', $1::date),
        (2, 'month', date_trunc('month', $1::timestamp)::date),
        (3, 'overall', NULL)
)
SELECT
    period.name,
    period.since,
    coalesce(sum(calls), 0)::bigint AS calls,
    coalesce(sum(errors), 0)::bigint AS errors,
    count(DISTINCT user_id) AS active_users,
    coalesce(sum(unpriced_calls), 0)::bigint AS unpriced_calls,
    coalesce(sum(estimated_calls), 0)::bigint AS estimated_calls,
    coalesce(sum(unavailable_calls), 0)::bigint AS unavailable_calls,
    CASE WHEN count(day) = 0 THEN 0 ELSE sum(prompt_tokens) END::bigint AS prompt_tokens,
    CASE WHEN count(day) = 0 THEN 0 ELSE sum(completion_tokens) END::bigint AS completion_tokens,
    CASE WHEN count(day) = 0 THEN 0 ELSE sum(cached_tokens) END::bigint AS cached_tokens,
    CASE WHEN count(day) = 0 THEN 0 ELSE sum(total_tokens) END::bigint AS total_tokens,
    CASE WHEN count(day) = 0 THEN 0 ELSE sum(cost_usd) END AS cost_usd
FROM period
LEFT JOIN user_days ON period.since IS NULL OR user_days.day >= period.since
GROUP BY period.place, period.name, period.since
ORDER BY period.place
"""


class Ledger:
    """Reads one database; holds no connection between reports."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._room = asyncio.Semaphore(MOST_CONNECTIONS)

    async def health(self) -> Health:
        """Return how fresh the ledger is."""
        async with self._transaction() as connection:
            row = await _row(connection, _HEALTH)
        return Health(newest_call=row["newest_call"])

    async def stats(self, at: datetime) -> Stats:
        """Return the sums of today, of this month and of all time, as of one moment."""
        async with self._transaction() as connection:
            status = await _row(connection, _STATUS, at)
            rows = await connection.fetch(_PERIODS, status["today"])
        return Stats(
            as_of=at,
            newest_call=status["last_call"],
            report_timezone=status["report_timezone"],
            periods=tuple(Period(**dict(row)) for row in rows),
        )

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """Open a connection and a read-only snapshot; translate what the library raises."""
        try:
            async with self._room:
                connection = await asyncpg.connect(
                    self._dsn,
                    timeout=CONNECT_SECONDS,
                    command_timeout=STATEMENT_SECONDS,
                    statement_cache_size=0,
                )
                try:
                    async with connection.transaction(isolation="repeatable_read", readonly=True):
                        milliseconds = str(int(STATEMENT_SECONDS * 1000))
                        await connection.fetchrow(_BEGIN, milliseconds)
                        yield connection
                finally:
                    connection.terminate()
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError) as exc:
            raise DatabaseUnavailableError("The ledger has not been made yet.") from exc
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
            raise DatabaseUnavailableError(cause=f"{type(exc).__name__}: {exc}") from exc
        except ValueError as exc:  # of an address that cannot be read; its text may hold a password
            raise DatabaseUnavailableError(cause="METER_DATABASE_URL cannot be read") from exc


async def _row(connection: asyncpg.Connection, query: str, *values: object) -> asyncpg.Record:
    row = await connection.fetchrow(query, *values)
    if row is None:
        raise DatabaseUnavailableError("The ledger is empty where it never should be.")
    return row
