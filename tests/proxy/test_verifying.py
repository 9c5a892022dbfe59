"""Tests of proxy.verifying: each check says that all is well, or what is not."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from proxy.core.gaps import MOST_GAPS, GapNote, Unmetered, unmetered
from proxy.errors import DatabaseUnreachableError
from proxy.ledger import Ledger
from proxy.rollups import Period
from proxy.verifying import CHECKS, run_verify
from tests.fakes.rows import ledger_row


async def verify(dsn: str, period: Period | None = None) -> tuple[int, list[str]]:
    """Return the number of findings and what is told."""
    lines: list[str] = []
    found = await asyncio.to_thread(run_verify, dsn, period or Period(), lines.append)
    return found, lines


async def test_a_ledger_that_is_right_is_told_so(database: str) -> None:
    """One line for each check."""
    ledger = Ledger(database, report_timezone="UTC")
    await ledger.insert([ledger_row(1)])
    await ledger.close()
    assert await verify(database) == (
        0,
        [f"{check.name}: all well, {check.promise}" for check in CHECKS],
    )


async def test_what_is_wrong_is_counted_and_told(database: str) -> None:
    """Within the days that were asked for."""
    ledger = Ledger(database, report_timezone="UTC")
    await ledger.insert([ledger_row(1)])
    await ledger.close()
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE usage_by_day SET calls = 2")
    await connection.close()
    found, lines = await verify(database)
    assert found == 1
    assert lines[0].startswith("sums: usage_by_day, day 2026-11-22,")
    assert lines[0].endswith("calls is 2 and should be 1")
    assert (await verify(database, Period(first=date(2026, 11, 23))))[0] == 0


async def test_gaps_are_stated_and_are_no_findings(database: str) -> None:
    """Nothing can be put right about them; but nobody is to think that all calls are there."""
    ledger = Ledger(database, report_timezone="UTC")
    moment = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    late = moment + timedelta(minutes=3)
    await ledger.note_gaps([Unmetered("w-1", moment, late, 7), Unmetered("w-1", moment, moment, 2)])
    await ledger.note_gaps([Unmetered("w-1", moment, late, 7), Unmetered("w-2", late, late, 1)])
    assert await ledger.unmetered_calls() == 8
    await ledger.close()
    found, lines = await verify(database)
    assert found == 0
    assert lines[-2] == (
        "gaps: 7 calls were not metered between 2026-11-22 12:00:00 UTC and "
        "2026-11-22 12:03:00 UTC: w-1 could not write them down"
    )
    assert lines[-1] == (
        "gaps: 1 call was not metered between 2026-11-22 12:03:00 UTC and "
        "2026-11-22 12:03:00 UTC: w-2 could not write them down"
    )


async def test_any_number_of_gaps_of_one_writer_adds_up(database: str) -> None:
    """Whatever was read of its note while one of them was still going on."""
    ledger = Ledger(database, report_timezone="UTC")
    moment = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    note = GapNote()
    for number in range(2 * MOST_GAPS):
        for calls in (1, 2):
            note.lost(calls, moment + timedelta(minutes=number))
            await ledger.note_gaps(unmetered("w-1", note.content(), is_dead=False))
        note.over()
    assert await ledger.unmetered_calls() == 2 * MOST_GAPS * 3
    await ledger.close()


async def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Instead of a ledger without faults."""
    with pytest.raises(DatabaseUnreachableError):
        await verify(f"postgresql://meter@/postgres?host={tmp_path}")
