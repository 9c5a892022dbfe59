import re
from datetime import UTC, date, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from dashboard.adding import totals
from dashboard.asking import PIECED, places
from dashboard.cells import CELLS, PLACES, PUNCTUAL_CELLS, SUMS, Source
from dashboard.filters import Filter
from tests.dashboard.conftest import fold, record
from tests.fakes.rows import ledger_row


@pytest.mark.parametrize("cells", [CELLS, PUNCTUAL_CELLS])
@pytest.mark.parametrize("source", get_args(Source))
async def test_cells_of_every_source_are_alike(
    database: str, source: Source, cells: dict[Source, str]
) -> None:
    """The same columns, and each refers to all parameters: Postgres wants to know their types."""
    connection = await asyncpg.connect(database)
    try:
        statement = await connection.prepare(cells[source])
        names = [attribute.name for attribute in statement.get_attributes()]
        assert names[:5] == ["day", "user_id", "endpoint", "model", "service_tier"]
        assert {*names[5:]} == {*SUMS}
        assert len(statement.get_parameters()) == len(PLACES)
    finally:
        await connection.close()


async def test_ends_of_a_range_are_planned_for_their_own_months_alone(database: str) -> None:
    """A plan for every month of the ledger takes longer than to read what is wanted."""
    connection = await asyncpg.connect(database)
    await connection.execute("SELECT ensure_partitions(8)")
    months = [
        row["month"]
        for row in await connection.fetch(
            "SELECT generate_series(date_trunc('month', now()), now() + '8 months', '1 month')"
            "::date AS month"
        )
    ]
    wanted = Filter(
        range="custom",
        first=months[2].replace(day=10),
        last=months[6].replace(day=10),
        zone=ZoneInfo("Asia/Kolkata"),
        report_zone=ZoneInfo("UTC"),
        users=("user-1",),
    )
    expected = [f"{months[place]:%Y_%m}" for place in (2, 6)]
    for source in sorted(PIECED - {"day_pieces"}):
        plan = await connection.fetch(
            f"EXPLAIN {PUNCTUAL_CELLS[source]}", *places(wanted, "", pieced=True)
        )
        told = "\n".join(row[0] for row in plan)
        assert re.findall(r"on user_api_usage_(\w{7})", told) == expected
        assert "Subplans Removed" not in told  # as where it is pruned only when it is run
    await connection.close()


@pytest.mark.parametrize("source", ["users", "spans", "features"])
async def test_days_before_after_and_between_longer_spans_count_once(
    database: str, source: Source
) -> None:
    """From any day to any other, with days between them on which nobody called."""
    first, days = date(2026, 1, 5), [day for day in range(50) if day not in {4, 30, 31}]
    midnight = datetime(first.year, first.month, first.day, tzinfo=UTC)
    await record(
        database, [ledger_row(day, created_at=midnight + timedelta(days=day)) for day in days]
    )
    await fold(database, 1000)
    connection = await asyncpg.connect(database)
    statement = await connection.prepare(totals(source))
    for begin in range(-1, 40, 3):
        for length in (0, 8, 13, 27, 45):
            wanted = Filter(
                range="custom",
                first=first + timedelta(days=begin),
                last=first + timedelta(days=begin + length),
                zone=ZoneInfo("UTC"),
                report_zone=ZoneInfo("UTC"),
            )
            expected = sum(begin <= day <= begin + length for day in days)
            assert (await statement.fetch(*places(wanted, "")))[0]["calls"] == expected
    await connection.close()
