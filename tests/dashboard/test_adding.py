from itertools import product
from typing import get_args

import asyncpg
import pytest

from dashboard import adding
from dashboard.cells import PLACES, SUMS, Key, Source

SOURCES: tuple[Source, ...] = get_args(Source)
GROUPS: tuple[tuple[Key, ...], ...] = (
    ("user_id",),
    ("endpoint",),
    ("model", "service_tier"),
    ("day", "endpoint"),
)


@pytest.mark.parametrize("source", SOURCES)
async def test_every_source_answers_every_question_alike(database: str, source: Source) -> None:
    """The same columns, the same parameters in the same places."""
    connection = await asyncpg.connect(database)
    try:
        for keys in GROUPS:
            statement = await connection.prepare(adding.sums(source, keys))
            names = [attribute.name for attribute in statement.get_attributes()]
            assert names == [*keys, *SUMS, "after_place", "after_name"]
            types = [parameter.name for parameter in statement.get_parameters()]
            assert len(types) == len(PLACES) + 6
        total = await connection.prepare(adding.totals(source))
        assert [attribute.name for attribute in total.get_attributes()] == list(SUMS)
    finally:
        await connection.close()


@pytest.mark.parametrize(("source", "keys"), list(product(SOURCES, ((), ("endpoint",)))))
async def test_who_is_active_is_counted_by_keys(
    database: str, source: Source, keys: tuple[Key, ...]
) -> None:
    """One row for each, or one in all."""
    connection = await asyncpg.connect(database)
    statement = await connection.prepare(adding.active_users(source, keys))
    names = [attribute.name for attribute in statement.get_attributes()]
    await connection.close()
    assert names == [*keys, "users"]


@pytest.mark.parametrize("edges", [False, True])
async def test_who_is_active_is_counted_from_sets_alike(database: str, *, edges: bool) -> None:
    """With the same parameters as from any other source."""
    connection = await asyncpg.connect(database)
    for keys in ((), ("endpoint",)):
        statement = await connection.prepare(adding.named(keys, edges=edges))
        names = [attribute.name for attribute in statement.get_attributes()]
        assert names == [*keys, "users"]
        assert len(statement.get_parameters()) == len(PLACES)
    await connection.close()
