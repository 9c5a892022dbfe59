"""Tests of proxy.seals: whoever tampers with the ledger is found out, and the row is named."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime

import asyncpg
import pytest

from proxy.core.gaps import Unmetered
from proxy.core.model import LedgerRow
from proxy.errors import DatabaseError
from proxy.freezing import Months
from proxy.ledger import Ledger
from proxy.resources import resource
from proxy.rollups import Period
from proxy.seals import findings
from tests.fakes.rows import MOMENT, correction, ledger_row

SCHEMA = resource("schema.sql").read_text(encoding="utf-8")
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


async def test_a_correction_is_sealed_like_a_call(
    sealed: asyncpg.Connection, database: str
) -> None:
    """Also where it is alone in its batch, as a note is."""
    await sealed.execute("UPDATE user_api_usage SET cost_usd = 1 WHERE corrects IS NOT NULL")
    assert await found(database) == [
        f"row {correction(ROWS[3]).event_id} of 2026-11-22 12:00:00 UTC was changed (seal 1/4)"
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


@pytest.mark.parametrize("later", ["-1 millisecond", "1 millisecond", "3 hours"])
async def test_a_row_that_stands_twice_is_named(
    sealed: asyncpg.Connection, database: str, later: str
) -> None:
    """The same id at another moment is another key: the database takes it, and counts it."""
    query = "SELECT attname FROM pg_attribute WHERE attrelid = 'user_api_usage'::regclass"
    names = [row[0] for row in await sealed.fetch(f"{query} AND attnum > 2 ORDER BY attnum")]
    columns = ", ".join(names)
    await sealed.execute(
        f"INSERT INTO user_api_usage (event_id, created_at, {columns}) "  # noqa: S608
        f"SELECT event_id, created_at + interval '{later}', {columns} "
        f"FROM user_api_usage WHERE event_id = '{ROWS[36].event_id}'"
    )
    (finding,) = await found(database)
    assert f"{ROWS[36].event_id}" in finding
    assert "stands again at 2026-10-22" in finding


async def test_a_row_outside_of_time_is_named(sealed: asyncpg.Connection, database: str) -> None:
    """No range of days has it, and it would be in every list."""
    await sealed.execute(
        "ALTER TABLE user_api_usage DISABLE TRIGGER ALL; "
        "INSERT INTO user_api_usage"
        " (event_id, created_at, api_path, operation_name, upstream, usage_source, outcome) "
        "VALUES (gen_random_uuid(), 'infinity', '/', 'chat', 'x', 'unavailable', 'ok')"
    )
    (finding,) = await found(database)
    assert "at a time that there is not" in finding


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "2001-01-01Z", "2044-01-01Z"])
async def test_a_seal_that_hides_behind_another_time_is_found(
    sealed: asyncpg.Connection, database: str, moment: str
) -> None:
    """Its rows would not be looked for."""
    await sealed.execute(
        f"UPDATE seal SET first_created_at = '{moment}', last_created_at = '{moment}' "  # noqa: S608
        "WHERE number = 1"
    )
    await sealed.execute("DELETE FROM user_api_usage WHERE created_at = $1", ROWS[0].created_at)
    october = Period(first=date(2026, 10, 1), past=date(2026, 11, 1))
    for period in (Period(), october):
        assert "seal 1/1: its stretch of time was changed" in await found(database, period)


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
    await sealed.execute("SELECT seal_note(id_of_month(3, '2026-10-01'))")
    assert await found(database) == []


NOTES = {
    "DELETE FROM metering_gap": (
        "the gap that began at 2026-11-22 12:00:00 UTC is missing (seal 1/6)"
    ),
    "UPDATE metering_gap SET calls = 7": (
        "the gap that began at 2026-11-22 12:00:00 UTC was changed (seal 1/6)"
    ),
    "INSERT INTO metering_gap VALUES ('w-2', '2026-11-23Z', '2026-11-23Z', 5)": (
        "the gap that began at 2026-11-23 00:00:00 UTC was put in beside openai-meter"
    ),
    "DELETE FROM closed_month": (
        "the closing of the month that began at 1971-11-01 00:00:00 UTC is missing (seal 1/7)"
    ),
    "UPDATE closed_month SET cost_usd = 5": (
        "the closing of the month that began at 1971-11-01 00:00:00 UTC was changed (seal 1/7)"
    ),
    "INSERT INTO retired_month VALUES ('2026-01-01', 0, '2026-01-01Z', '2026-02-01Z')": (
        "the letting go of the month that began at 2026-01-01 00:00:00 UTC was put in beside "
        "openai-meter"
    ),
}


@pytest.mark.parametrize("change", NOTES)
async def test_what_is_noted_beside_the_rows_is_sealed(
    sealed: asyncpg.Connection, database: str, change: str
) -> None:
    """A gap that is made smaller, a closing that is undone, rows that are said to be let go of."""
    ledger = Ledger(database, report_timezone="UTC")
    for calls in (7, 9, 9, 8):
        await ledger.note_gaps([Unmetered("w-1", MOMENT, MOMENT, calls)])
    await ledger.close()
    await Months(database).close(date(1971, 11, 1))
    assert await found(database) == []
    await sealed.execute(change)
    assert await found(database) == [NOTES[change]]


async def test_notes_from_before_they_were_sealed_are_sealed_once(
    sealed: asyncpg.Connection, database: str
) -> None:
    """And what is changed after that is found, however often the schema is applied."""
    await sealed.execute("INSERT INTO metering_gap VALUES ('w-1', '2026-11-22Z', '2026-11-22Z', 5)")
    await sealed.execute(SCHEMA)
    assert await found(database) == []
    await sealed.execute("UPDATE metering_gap SET calls = 4")
    await sealed.execute(SCHEMA)
    assert await found(database) == [
        "the gap that began at 2026-11-22 00:00:00 UTC was changed (seal 1/5)"
    ]


async def test_a_ledger_that_is_not_there_is_an_error(empty_database: str) -> None:
    """And not one without faults."""
    with pytest.raises(DatabaseError, match="seal"):
        await found(empty_database)
