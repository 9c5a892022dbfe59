"""Tests of proxy.retaining: old rows go to a file, their sums stay, and nothing goes by halves."""

import asyncio
import csv
import gzip
import hashlib
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from proxy import seals
from proxy.errors import ClosingError, ConfigurationError
from proxy.freezing import Months
from proxy.ledger import Ledger
from proxy.retaining import Retired, oldest_kept, run_retain
from proxy.rollups import Period, findings
from tests.fakes.rows import ledger_row

LAST_MONTH = date(2026, 10, 1)


@pytest.mark.parametrize(
    ("months", "today", "expected"),
    [
        (18, date(2026, 11, 22), date(2025, 5, 1)),
        (1, date(2026, 1, 31), date(2025, 12, 1)),
        (12, date(2026, 12, 1), date(2025, 12, 1)),
    ],
)
def test_so_many_months_are_kept_and_this_one(months: int, today: date, expected: date) -> None:
    """Eighteen months: the last eighteen whole ones."""
    assert oldest_kept(months, today) == expected


def test_a_month_at_least_is_kept() -> None:
    """Nobody wants to lose the month that is reported just now."""
    with pytest.raises(ConfigurationError, match="--months is 0"):
        oldest_kept(0, date(2026, 11, 22))


async def two_months(dsn: str) -> asyncpg.Connection:
    """Fill two months that have partitions: the tests' own, in the past of every run."""
    connection = await asyncpg.connect(dsn)
    for name, since, past in (
        ("user_api_usage_2025_02", "2025-02-01Z", "2025-03-01Z"),
        ("user_api_usage_2025_03", "2025-03-01Z", "2025-04-01Z"),
    ):
        await connection.execute(
            f"CREATE TABLE {name} PARTITION OF user_api_usage "
            f"FOR VALUES FROM ('{since}') TO ('{past}')"
        )
    ledger = Ledger(dsn, report_timezone="UTC")
    rows = [
        ledger_row(n, created_at=datetime(2025, 2 + n % 2, 3 + n, tzinfo=UTC), user_id=f'"{n}"')
        for n in range(10)
    ]
    assert (await ledger.insert(rows)).inserted == 10
    await ledger.close()
    return connection


async def retain(dsn: str, before: date, directory: Path | None) -> list[Retired]:
    """Let go of months, as the command does."""
    told: list[Retired] = []
    await asyncio.to_thread(run_retain, dsn, before, directory, told.append)
    return told


async def test_an_old_month_goes_to_a_file_and_its_sums_stay(database: str, tmp_path: Path) -> None:
    """And the checks know that its rows are gone."""
    connection = await two_months(database)
    path = tmp_path / "user_api_usage_2025-02.csv.gz"
    assert await retain(database, date(2025, 3, 1), tmp_path) == [
        Retired(date(2025, 2, 1), 5, path)
    ]
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["user_id"] for row in rows] == ['"0"', '"2"', '"4"', '"6"', '"8"']
    assert {Decimal(row["cost_usd"]) for row in rows} == {Decimal("0.000285000001")}
    assert await connection.fetchval("SELECT count(*) FROM user_api_usage") == 5
    assert await connection.fetchval("SELECT calls FROM ledger_status") == 10
    assert [f async for f in findings(database, Period())] == []
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
        await connection.execute("SELECT rebuild_rollups('2025-02-10', '2025-02-11')")
    await connection.execute("SELECT rebuild_rollups('2025-03-01', '2025-04-01')")
    assert await connection.fetchval("SELECT calls FROM ledger_status") == 10
    assert await retain(database, date(2025, 3, 1), tmp_path) == []
    await connection.close()


async def test_the_export_of_a_closed_month_is_written_before_it_cannot_be_made(
    database: str, tmp_path: Path
) -> None:
    """Also that of a later month that had a late row; all others can be checked as before."""
    connection = await two_months(database)
    months = Months(database)
    await months.close(date(2025, 2, 1))
    ledger = Ledger(database, report_timezone="UTC")
    await ledger.insert([ledger_row(77, created_at=datetime(2025, 2, 20, tzinfo=UTC))])
    await months.close(date(2025, 3, 1))
    await ledger.insert([ledger_row(78, created_at=datetime(2025, 2, 21, tzinfo=UTC))])
    await ledger.insert([ledger_row(79, created_at=datetime(2025, 4, 2, tzinfo=UTC))])
    await ledger.close()
    await months.close(date(2025, 4, 1))
    await months.close(date(2025, 5, 1))
    hashes = {closed.month: closed.export_sha256 for closed in await months.all()}
    (february,) = await retain(database, date(2025, 3, 1), tmp_path)
    assert [path.name for path in february.exports] == [
        "closed_2025-02.csv.gz",
        "closed_2025-03.csv.gz",
        "closed_2025-04.csv.gz",
    ]
    for month, path in zip(hashes, february.exports, strict=False):
        with gzip.open(path) as file:
            assert hashlib.sha256(file.read()).hexdigest() == hashes[month]
    (march,) = await retain(database, date(2025, 4, 1), tmp_path)
    assert march.exports == ()
    assert [closed.is_retired for closed in await months.all()] == [True, True, True, False]
    with pytest.raises(ClosingError, match="what `retain` wrote before, if it was told to"):
        await months.export(date(2025, 3, 1), print)
    assert [f async for f in findings(database, Period())] == []
    await connection.execute("UPDATE usage_by_day SET calls = 7 WHERE day = '2025-04-02'")
    assert len([f async for f in findings(database, Period())]) == 1
    await connection.close()


async def test_a_closed_month_that_was_changed_is_kept(database: str, tmp_path: Path) -> None:
    """Whoever lets go of it would destroy the evidence."""
    connection = await two_months(database)
    await Months(database).close(date(2025, 2, 1))
    await connection.execute("UPDATE user_api_usage SET cost_usd = 0")
    with pytest.raises(ClosingError, match="2025-02 is not as it was closed"):
        await retain(database, date(2025, 3, 1), tmp_path)
    assert await connection.fetchval("SELECT count(*) FROM user_api_usage") == 10
    assert not (tmp_path / "closed_2025-02.csv.gz").exists()
    await connection.close()


async def test_what_was_let_go_of_open_cannot_be_closed(database: str) -> None:
    """There is nothing that could be exported; months after it can be closed without it."""
    connection = await two_months(database)
    await retain(database, date(2025, 3, 1), None)
    with pytest.raises(ClosingError, match="2025-02: its rows were let go of"):
        await Months(database).close(date(2025, 2, 1))
    assert (await Months(database).close(date(2025, 3, 1))).export_rows == 5
    await connection.close()


async def test_what_cannot_be_written_stays(database: str, tmp_path: Path) -> None:
    """A full disk must not cost a month."""
    connection = await two_months(database)
    with pytest.raises(ConfigurationError, match="cannot write"):
        await retain(database, date(2025, 3, 1), tmp_path / "missing")
    assert await connection.fetchval("SELECT count(*) FROM user_api_usage") == 10
    assert await connection.fetchval("SELECT count(*) FROM retired_month") == 0
    await connection.close()


async def test_rows_may_go_for_ever(database: str) -> None:
    """Where somebody says so."""
    connection = await two_months(database)
    assert [month.rows for month in await retain(database, date(2025, 4, 1), None)] == [5, 5]
    assert await connection.fetchval("SELECT count(*) FROM user_api_usage") == 0
    assert await connection.fetchval("SELECT sum(calls) FROM usage_by_user_day") == 10
    await connection.close()


async def test_seals_of_months_that_are_gone_keep_their_place_in_the_chain(database: str) -> None:
    """Their lists of rows go with the last of their months, and with nothing else."""
    connection = await two_months(database)
    kept = "SELECT count(*) FROM seal WHERE NOT is_note(event_ids[1])"
    await retain(database, date(2025, 3, 1), None)
    assert await connection.fetchval(kept) == 1
    await retain(database, date(2025, 4, 1), None)
    assert await connection.fetchval(kept) == 0
    assert await connection.fetchval("SELECT count(*) FROM seal WHERE event_ids IS NULL") == 1
    assert [f async for f in seals.findings(database, Period())] == []
    await connection.execute("UPDATE seal SET sealed_at = 'epoch' WHERE number = 1")
    (finding,) = [f async for f in seals.findings(database, Period())]
    assert "it does not follow from the seal before it" in finding
    await connection.close()


async def test_a_row_in_the_default_partition_keeps_its_seal(database: str) -> None:
    """It has not gone, so it is to be checked."""
    connection = await two_months(database)
    ledger = Ledger(database, report_timezone="UTC")
    await ledger.insert([ledger_row(77, created_at=datetime(2025, 1, 31, 23, tzinfo=UTC))])
    await ledger.close()
    await connection.execute(
        "INSERT INTO retired_month (month, rows, counted_since, counted_past)"
        " VALUES ('2025-01-01', 0, '2025-01-01Z', '2025-02-01Z')"
    )
    await connection.execute("SELECT seal_note(id_of_month(3, '2025-01-01'))")
    await retain(database, date(2025, 4, 1), None)
    kept = "SELECT count(*) FROM seal WHERE NOT is_note(event_ids[1])"
    assert await connection.fetchval(kept) == 1
    assert [f async for f in seals.findings(database, Period())] == []
    await connection.close()
