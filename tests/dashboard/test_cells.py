import re
from typing import get_args
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from dashboard.asking import PIECED, places
from dashboard.cells import CELLS, PLACES, PUNCTUAL_CELLS, SUMS, Source
from dashboard.filters import Filter


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
