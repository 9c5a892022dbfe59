"""Tests of proxy.verifying: each check says that all is well, or what is not."""

import asyncio
from datetime import date
from pathlib import Path

import asyncpg
import pytest

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


async def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Instead of a ledger without faults."""
    with pytest.raises(DatabaseUnreachableError):
        await verify(f"postgresql://meter@/postgres?host={tmp_path}")
