from typing import get_args

import asyncpg
import pytest

from dashboard.cells import CELLS, PLACES, PUNCTUAL_CELLS, SUMS, Source


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
