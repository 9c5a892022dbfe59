"""`openai-meter retain`: let go of old months, a partition at a time, and keep their sums.

A month is written to a file first, and the file is on the disk before the rows are gone; all in one
transaction, so that whoever interrupts it finds the month as it was. What was let go of is noted in
the ledger: its sums stay, can no longer be made again, and are left out of checks. Of its seals the
hashes stay, so that the chain can be followed. The exports of closed months that lose rows are
written too, for nobody can make them again. Rows that lie in the default partition stay.
"""

import asyncio
import contextlib
import gzip
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import asyncpg

from proxy.database import connect, translated
from proxy.durability import sync_directory
from proxy.errors import ConfigurationError
from proxy.freezing import Months

_STATEMENT_SECONDS = 7200.0
_COMPRESSION = 6

_PARTITIONS = """
SELECT partition.relname::text AS name
FROM pg_inherits
JOIN pg_class AS partition ON partition.oid = inhrelid
WHERE inhparent = 'user_api_usage'::regclass
    AND partition.relname ~ '^user_api_usage_[0-9]{4}_[0-9]{2}$'
ORDER BY 1
"""

# Writers of the month wait, those of other months do not.
_LOCK = "SELECT lock_partition($1)"

_NOTE = "SELECT note_retired_month($1, $2)"

# Closed months of which every row is there.
_WHOLE = """
SELECT month
FROM closed_month
WHERE export_sha256 IS NOT NULL AND NOT is_retired(starts_at, ends_at)
ORDER BY month
"""

_DETACH = "SELECT drop_partition($1)"

_SEAL = "SELECT seal_note(id_of_month(3, $1))"

_FORGET = "SELECT forget_sealed()"


class Retired(NamedTuple):
    """A month that was let go of, and where its rows are now; None: nowhere."""

    month: date
    rows: int
    path: Path | None
    exports: tuple[Path, ...] = ()  # of closed months that had some of its rows


def oldest_kept(months: int, today: date) -> date:
    """Return the first month that is kept, of so many before this one."""
    if months < 1:
        raise ConfigurationError(f"--months is {months}: expected 1 or more")
    count = today.year * 12 + today.month - 1 - months
    return date(count // 12, count % 12 + 1, 1)


def run_retain(
    dsn: str, before: date, directory: Path | None, tell: Callable[[Retired], object]
) -> None:
    """Let go of all months before one; `directory`: where their rows are written to first."""
    asyncio.run(_retain(dsn, before, directory, tell))


async def _retain(
    dsn: str, before: date, directory: Path | None, tell: Callable[[Retired], object]
) -> None:
    connection = await connect(dsn, statement_seconds=_STATEMENT_SECONDS)
    try:
        for partition in await connection.fetch(_PARTITIONS):
            if _month(partition["name"]) < before:
                tell(await _retire(dsn, connection, partition["name"], directory))
        await connection.fetchval(_FORGET)
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        raise translated(exc, dsn) from exc
    finally:
        connection.terminate()


def _month(partition: str) -> date:
    year, month = partition.rsplit("_", 2)[1:]
    return date(int(year), int(month), 1)


async def _retire(
    dsn: str, connection: asyncpg.Connection, partition: str, directory: Path | None
) -> Retired:
    month = _month(partition)
    path = directory / f"user_api_usage_{month:%Y-%m}.csv.gz" if directory else None
    exports: list[Path] = []
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '60s'")
        await connection.execute(_LOCK, partition)
        whole = [row["month"] for row in await connection.fetch(_WHOLE)]
        rows = int(await connection.fetchval(_NOTE, partition, month))
        if path is not None and directory is not None:
            if (written := await _copy(connection, partition, path)) != rows:
                raise ConfigurationError(f"{path} has {written} rows, expected {rows}")
            left = {row["month"] for row in await connection.fetch(_WHOLE)}
            for closed in [each for each in whole if each not in left]:
                exports.append(directory / f"closed_{closed:%Y-%m}.csv.gz")
                # By a connection that has not seen the note yet, to which the month is whole.
                async with _written(exports[-1]) as file:
                    await Months(dsn).export(closed, file.write)
        await connection.execute(_DETACH, partition)
        await connection.execute(_SEAL, month)
    return Retired(month, rows, path, tuple(exports))


async def _copy(connection: asyncpg.Connection, partition: str, path: Path) -> int:
    """Write a partition to a file; return its rows."""
    async with _written(path) as file:

        async def write(data: bytes) -> None:
            await asyncio.to_thread(file.write, data)

        status = await connection.copy_from_table(
            partition, output=write, format="csv", header=True
        )
    return int(status.rpartition(" ")[2])


@contextlib.asynccontextmanager
async def _written(path: Path) -> AsyncIterator[gzip.GzipFile]:
    """Have a file written that is there as a whole, and on the disk, or not at all."""
    unfinished = path.with_suffix(".unfinished")
    try:
        file = await asyncio.to_thread(gzip.GzipFile, unfinished, "wb", _COMPRESSION)
        try:
            yield file
        finally:
            await asyncio.to_thread(file.close)
        await asyncio.to_thread(_keep, unfinished, path)
    except OSError as exc:
        raise ConfigurationError(f"cannot write {path}: {exc.strerror}; nothing is gone") from exc
    finally:  # where it was kept it has another name
        with contextlib.suppress(OSError):
            await asyncio.to_thread(unfinished.unlink, missing_ok=True)


def _keep(unfinished: Path, path: Path) -> None:
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_directory(path.parent)


def today() -> date:
    """Return the day (UTC), by which partitions are made."""
    return datetime.now(UTC).date()  # noqa: TID251 - a command of its own, not a part that is timed
