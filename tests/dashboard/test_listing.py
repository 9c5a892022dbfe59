import asyncpg
import pytest

from dashboard import listing
from dashboard.cells import PLACES
from dashboard.tables import CALL

PAGES = (
    listing.NEWEST_CALLS,
    listing.OLDEST_CALLS,
    listing.NEWEST_CALLS_OF_USERS,
    listing.OLDEST_CALLS_OF_USERS,
)


@pytest.mark.parametrize("statement", PAGES, ids=("newest", "oldest", "newest of", "oldest of"))
async def test_every_list_of_calls_has_the_columns_of_a_call(database: str, statement: str) -> None:
    """And takes a place to begin after, and how many, beyond the usual parameters."""
    connection = await asyncpg.connect(database)
    try:
        prepared = await connection.prepare(statement)
        names = {attribute.name for attribute in prepared.get_attributes()}
        assert names == {column.name for column in CALL}
        assert len(prepared.get_parameters()) == len(PLACES) + 3
    finally:
        await connection.close()
