"""`openai-meter close`: freeze a month for finance, and show later that it is as it was.

A month is one of the report time zone. When it is closed, the instant at which it ends is kept:
what comes for it later counts at that instant, in the next month (`accounted_at`, set by `ledger`).
So the rows of a closed month are the same for ever, and so are the bytes of its export, whose
SHA-256 is kept. Months are closed in order; closing can be interrupted and done again.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

import asyncpg

from proxy.database import connect, translated
from proxy.errors import ClosingError
from proxy.rollups import Period

EXPORT_VERSION = 1
_EXPORT_SECONDS = 3600.0

# Writers hold this lock shared: what they have begun is in the month, what they begin later is not.
_ALONE = """
SELECT pg_advisory_xact_lock(hashtextextended('openai-meter rollups', 0))
"""

_MONTH = """
SELECT
    zone.value AS report_timezone,
    CASE
        WHEN last.month = ($1::date - interval '1 month')::date THEN last.ends_at
        ELSE $1::timestamp AT TIME ZONE zone.value
    END AS starts_at,
    ($1::timestamp + interval '1 month') AT TIME ZONE zone.value AS ends_at,
    now() >= ($1::timestamp + interval '1 month') AT TIME ZONE zone.value AS is_over,
    is_retired(
        $1::timestamp AT TIME ZONE zone.value,
        ($1::timestamp + interval '1 month') AT TIME ZONE zone.value
    ) AS is_retired,
    last.month AS last_month,
    coalesce(last.ends_at, '-infinity') AS open_since
FROM meter_settings AS zone
LEFT JOIN LATERAL (
    SELECT month, ends_at FROM closed_month ORDER BY month DESC LIMIT 1
) AS last ON true
WHERE zone.name = 'report_timezone'
"""

# The oldest month that is open and has something in it, before the one that is to be closed; months
# that were let go of have nothing any more.
_EARLIER = """
SELECT date_trunc('month', min(bucket) AT TIME ZONE $3)::date
FROM usage_by_quarter_hour
WHERE bucket >= $1 AND bucket < $2 AND NOT is_retired(bucket, bucket + interval '15 minutes')
"""

_FREEZE = """
INSERT INTO closed_month (month, starts_at, ends_at, report_timezone)
VALUES ($1, $2, $3, $4)
"""

_CLOSED = """
SELECT
    month, starts_at, ends_at, report_timezone, closed_at, export_rows, export_sha256, cost_usd,
    is_retired(starts_at, ends_at)
FROM closed_month
WHERE $1::date IS NULL OR month = $1
ORDER BY month
"""

_KEEP = """
UPDATE closed_month
SET export_version = $2, export_rows = $3, export_sha256 = $4, cost_usd = $5
WHERE month = $1 AND export_sha256 IS NULL
"""

_SEAL = """
SELECT seal_note(id_of_month(2, $1))
"""

_COST = """
SELECT sum(cost_usd)
FROM user_api_usage
WHERE (accounted_at IS NULL AND created_at >= $1 AND created_at < $2)
    OR (accounted_at >= $1 AND accounted_at < $2)
"""

# Version 1. Its bytes are kept as a hash: nothing in it may change, another export is version 2.
# Texts that a spreadsheet would take for a formula begin with an apostrophe.
_EXPORT = r"""
SELECT
    event_id,
    to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS created_at,
    to_char(accounted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS accounted_at,
    regexp_replace(user_id, '^([-=+@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20])', '''\1') AS user_id,
    regexp_replace(endpoint, '^([-=+@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20])', '''\1') AS endpoint,
    regexp_replace(operation_name, '^([-=+@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20])', '''\1')
        AS operation_name,
    regexp_replace(api_path, '^([-=+@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20])', '''\1') AS api_path,
    regexp_replace(upstream, '^([-=+@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20])', '''\1') AS upstream,
    regexp_replace(model, '^([-=+@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20])', '''\1') AS model,
    regexp_replace(request_model, '^([-=+@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20])', '''\1')
        AS request_model,
    regexp_replace(service_tier, '^([-=+@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20])', '''\1') AS service_tier,
    status,
    outcome,
    usage_source,
    prompt_tokens,
    completion_tokens,
    total_tokens,
    cached_tokens,
    cache_write_tokens,
    reasoning_tokens,
    audio_prompt_tokens,
    audio_completion_tokens,
    cost_usd,
    tool_cost_usd,
    list_cost_usd,
    regexp_replace(price_id, '^([-=+@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20])', '''\1') AS price_id,
    catalog_version,
    unpriced_reason,
    corrects,
    correction_number,
    settles,
    metadata::text AS metadata
FROM user_api_usage
WHERE (accounted_at IS NULL AND created_at >= $1 AND created_at < $2)
    OR (accounted_at >= $1 AND accounted_at < $2)
ORDER BY user_api_usage.created_at, user_api_usage.event_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedMonth:
    """A month that is closed; `export_sha256` None: closing it was interrupted."""

    month: date
    starts_at: datetime
    ends_at: datetime
    report_timezone: str
    closed_at: datetime
    export_rows: int | None
    export_sha256: str | None
    cost_usd: Decimal | None
    is_retired: bool  # its rows were let go of, or some of them


class Months:
    """The closed months of one ledger."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def close(self, month: date) -> ClosedMonth:
        """Freeze a month and keep the hash of its export; raise ClosingError where it cannot be."""
        async with self._connected() as connection:
            if not (found := await _closed(connection, month)):
                await _freeze(connection, month)
                found = await _closed(connection, month)
            elif found[0].export_sha256 is not None:
                raise ClosingError(f"{month:%Y-%m} is closed since {found[0].closed_at:%Y-%m-%d}")
            rows, digest = await _exported(connection, found[0], _nowhere)
            cost = await connection.fetchval(_COST, found[0].starts_at, found[0].ends_at)
            async with connection.transaction():
                await connection.execute(_KEEP, month, EXPORT_VERSION, rows, digest, cost)
                await connection.execute(_SEAL, month)
            return (await _closed(connection, month))[0]

    async def export(self, month: date, write: Callable[[bytes], object]) -> None:
        """Write the export of a closed month; raise ClosingError where it is not as it was."""
        async with self._connected() as connection:
            if not (found := await _closed(connection, month)):
                raise ClosingError(f"{month:%Y-%m} is not closed")
            if found[0].is_retired:
                raise ClosingError(
                    f"{month:%Y-%m}: its rows were let go of; its export is what `retain` wrote "
                    f"before, if it was told to, with SHA-256 {found[0].export_sha256}"
                )
            _, digest = await _exported(connection, found[0], write)
            if digest != found[0].export_sha256:
                raise ClosingError(_changed(found[0], digest))

    async def all(self) -> list[ClosedMonth]:
        """Return the months that are closed."""
        async with self._connected() as connection:
            return await _closed(connection, None)

    async def findings(self, month: date | None = None) -> AsyncIterator[str]:
        """Yield a sentence for each closed month, or for this one, that is not as it was."""
        async with self._connected() as connection:
            for closed in await _closed(connection, month):
                if closed.export_sha256 is None:
                    yield f"{closed.month:%Y-%m}: closing it was interrupted, close it again"
                elif not closed.is_retired:
                    _, digest = await _exported(connection, closed, _nowhere)
                    if digest != closed.export_sha256:
                        yield _changed(closed, digest)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await connect(self._dsn, statement_seconds=_EXPORT_SECONDS)
        try:
            yield connection
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
            raise translated(exc, self._dsn) from exc
        finally:
            connection.terminate()


async def findings(dsn: str, _period: Period) -> AsyncIterator[str]:
    """Yield what `Months` finds, for `openai-meter verify`."""
    async for finding in Months(dsn).findings():
        yield finding


async def _closed(connection: asyncpg.Connection, month: date | None) -> list[ClosedMonth]:
    return [ClosedMonth(**dict(row)) for row in await connection.fetch(_CLOSED, month)]


async def _freeze(connection: asyncpg.Connection, month: date) -> None:
    """Close the month, alone; what is inserted afterwards counts later."""
    async with connection.transaction():
        await connection.execute(_ALONE)
        row = await connection.fetchrow(_MONTH, month)
        if row is None or not row["is_over"]:
            raise ClosingError(f"{month:%Y-%m} is not over yet")
        if row["last_month"] is not None and row["last_month"] > month:
            raise ClosingError(
                f"months are closed in order: {row['last_month']:%Y-%m} is closed already"
            )
        if row["is_retired"]:
            raise ClosingError(f"{month:%Y-%m}: its rows were let go of, or some of them")
        zone = row["report_timezone"]
        earlier = await connection.fetchval(_EARLIER, row["open_since"], row["starts_at"], zone)
        if earlier is not None:
            raise ClosingError(f"months are closed in order: {earlier:%Y-%m} is open and has rows")
        await connection.execute(_FREEZE, month, row["starts_at"], row["ends_at"], zone)


async def _exported(
    connection: asyncpg.Connection, closed: ClosedMonth, write: Callable[[bytes], object]
) -> tuple[int, str]:
    """Write the rows of a month as CSV; return how many they are, and the SHA-256 of the bytes."""
    digest = hashlib.sha256()

    async def take(chunk: bytes) -> None:
        digest.update(chunk)
        await asyncio.to_thread(write, chunk)

    done = await connection.copy_from_query(
        _EXPORT,
        closed.starts_at,
        closed.ends_at,
        output=take,
        format="csv",
        header=True,
        encoding="utf-8",
        timeout=_EXPORT_SECONDS,
    )
    return int(done.rpartition(" ")[2]), digest.hexdigest()


def _nowhere(_chunk: bytes) -> None:
    """Take bytes that nobody wants but for their hash."""


def _changed(closed: ClosedMonth, digest: str) -> str:
    return (
        f"{closed.month:%Y-%m} is not as it was closed: its export has SHA-256 {digest}, "
        f"and had {closed.export_sha256}"
    )
