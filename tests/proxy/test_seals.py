"""Tests of proxy.seals: whoever tampers with the ledger is found out, and the row is named."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime

import asyncpg
import pytest

from proxy.core.model import LedgerRow
from proxy.errors import DatabaseError
from proxy.ledger import Ledger
from proxy.rollups import Period
from proxy.seals import findings
from tests.fakes.rows import MOMENT, correction, ledger_row

OCTOBER = MOMENT.replace(month=10)
ROWS = [
    *(ledger_row(number, metadata={"a": 1.0, "ü": [None, "💣"]}) for number in range(30)),
    *(ledger_row(number, created_at=OCTOBER) for number in range(30, 40)),
    ledger_row(40, created_at=MOMENT.replace(year=1971)),
    ledger_row(41, created_at=datetime(8999, 12, 31, tzinfo=UTC)),
]


@pytest.fixture
async def sealed(database: str) -> AsyncIterator[asyncpg.Connection]:
    """Return a connection to a ledger of three batches and a correction."""
    ledger = Ledger(database, report_timezone="UTC")
    for batch in (ROWS[:20], ROWS[10:35], ROWS[35:]):
        await ledger.insert(batch)
    await ledger.correct([correction(ROWS[3], unpriced_change=1)])
    await ledger.close()
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def found(dsn: str, period: Period | None = None) -> list[str]:
    """Return all findings."""
    return [finding async for finding in findings(dsn, period or Period())]


def named(row: LedgerRow) -> str:
    """Return how a row is called."""
    return f"row {row.event_id} of {row.created_at:%Y-%m-%d %H:%M:%S} UTC"


async def test_a_ledger_that_nobody_touched_is_whole(
    sealed: asyncpg.Connection, database: str
) -> None:
    """Neither another session's settings, nor a new column, nor a row's new place matter."""
    assert await found(database) == []
    await sealed.execute("ALTER TABLE user_api_usage ADD COLUMN later text")
    settings = "bytea_output = escape, datestyle = 'German', timezone = 'Asia/Tokyo'"
    for setting in settings.split(", "):
        name = await sealed.fetchval("SELECT current_database()")
        await sealed.execute(f"ALTER DATABASE {name} SET {setting}")
    await sealed.execute("SELECT ensure_partitions(12)")
    await sealed.execute("VACUUM FULL user_api_usage")
    assert await found(database) == []


@pytest.mark.parametrize(
    "change",
    [
        "cost_usd = cost_usd + 0.000000000001",
        "user_id = 'eve'",
        "metadata = '{}'",
        "cached_tokens = NULL",
        "recorded_at = recorded_at - interval '1 microsecond'",
        "accounted_at = '2026-12-01Z'",
    ],
)
async def test_a_row_that_was_changed_is_named(
    sealed: asyncpg.Connection, database: str, change: str
) -> None:
    """Whatever was changed in it."""
    await sealed.execute(
        f"UPDATE user_api_usage SET {change} WHERE event_id = $1",  # noqa: S608
        ROWS[31].event_id,
    )
    assert await found(database) == [f"{named(ROWS[31])} was changed (seal 1/2)"]
    assert await found(database, Period(first=date(2026, 11, 1), past=date(2026, 12, 1))) == [
        f"{named(ROWS[31])} was changed (seal 1/2)"  # its batch has rows of November too
    ]
    assert await found(database, Period(first=date(9999, 1, 1))) == []


async def test_a_row_that_was_removed_is_named(sealed: asyncpg.Connection, database: str) -> None:
    """A correction too."""
    await sealed.execute("DELETE FROM user_api_usage WHERE event_id = $1", ROWS[41].event_id)
    made = correction(ROWS[3])
    await sealed.execute("DELETE FROM user_api_usage WHERE event_id = $1", made.event_id)
    assert await found(database) == [
        f"{named(ROWS[41])} is missing (seal 1/3)",
        f"row {made.event_id} of 2026-11-22 12:00:00 UTC is missing (seal 1/4)",
    ]


@pytest.mark.parametrize("year", [1971, 2026, 8999])
async def test_a_row_that_was_put_in_is_named(
    sealed: asyncpg.Connection, database: str, year: int
) -> None:
    """In whatever month."""
    row = ledger_row(99, created_at=MOMENT.replace(year=year))
    await sealed.execute(
        "INSERT INTO user_api_usage (event_id, created_at, api_path, operation_name, upstream,"
        " usage_source, outcome, recorded_at)"
        " VALUES ($1, $2, '/', 'chat', 'x', 'unavailable', 'ok', '2026-11-22 13:00Z')",
        row.event_id,
        row.created_at,
    )
    expected = f"{named(row)} was put in beside the recorder, it says at 2026-11-22 13:00:00 UTC"
    assert await found(database) == [expected]


async def test_a_chain_that_was_mended_is_found(sealed: asyncpg.Connection, database: str) -> None:
    """Who changes a row and its digest has to change all hashes that come after it."""
    await sealed.execute("UPDATE user_api_usage SET cost_usd = 0")
    await sealed.execute(
        """
        UPDATE seal
        SET digests = (
            SELECT string_agg(row_digest(usage), '' ORDER BY place)
            FROM unnest(event_ids) WITH ORDINALITY AS entry (event_id, place)
            JOIN user_api_usage AS usage USING (event_id)
        )
        """
    )
    assert await found(database) == [
        f"seal 1/{number}: its list of rows was changed" for number in (1, 2, 3, 4)
    ]
    await sealed.execute(
        "UPDATE seal SET content_hash = sha256(array_send(event_ids) || digests) WHERE number = 2"
    )
    assert (await found(database))[1] == (
        "seal 1/2: it does not follow from the seal before it: one of the two was changed"
    )


async def test_a_seal_that_was_removed_is_found(sealed: asyncpg.Connection, database: str) -> None:
    """In the middle or at the end; its rows are then rows that nobody has recorded."""
    await sealed.execute("DELETE FROM seal WHERE number = 2")
    lines = await found(database)
    assert lines[0] == "seal 1/3: the seals before it are missing, from 2 on"
    assert len(lines) == 1 + 15
    await sealed.execute("DELETE FROM seal WHERE number = 4")
    assert "seal 1/4: it is the last of its chain, and missing or another one" in (
        await found(database)
    )
    await sealed.execute("UPDATE seal_chain SET number = 1 WHERE chain = 1")
    assert "seal 1/3: it stands behind the last of its chain" in await found(database)


async def test_a_seal_whose_list_was_removed_with_its_rows_is_found(
    sealed: asyncpg.Connection, database: str
) -> None:
    """Only the months that were let go of have seals without a list."""
    await sealed.execute("UPDATE seal SET event_ids = NULL, digests = NULL WHERE number = 2")
    await sealed.execute("DELETE FROM user_api_usage")
    assert "seal 1/2: its list of rows was removed" in await found(database)


async def test_rows_of_a_month_that_was_let_go_of_are_not_missed(
    sealed: asyncpg.Connection, database: str
) -> None:
    """Retention takes whole months, and says so; the chain is followed all the same."""
    await sealed.execute("ALTER TABLE user_api_usage DETACH PARTITION user_api_usage_2026_10")
    assert len(await found(database)) == 10
    await sealed.execute(
        "INSERT INTO retired_month (month, rows, counted_since, counted_past)"
        " VALUES ('2026-10-01', 10, '2026-10-01Z', '2026-11-01Z')"
    )
    assert await found(database) == []


async def test_a_ledger_that_is_not_there_is_an_error(empty_database: str) -> None:
    """And not one without faults."""
    with pytest.raises(DatabaseError, match="seal"):
        await found(empty_database)
