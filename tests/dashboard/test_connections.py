import asyncio

import asyncpg
import pytest

from dashboard.connections import Connections, Priority
from dashboard.together import together


async def test_who_is_urgent_is_answered_before_who_waits_longer(database: str) -> None:
    """And what goes onto the page as it is comes last."""
    answered = []
    async with _pool(database) as pool, pool.acquire() as connection:
        asked = Connections(connection)

        async def ask(priority: Priority, name: str) -> None:
            await asked.fetch("SELECT 1", priority=priority)
            answered.append(name)

        await together(
            ask(Priority.LAST, "whoever comes"),
            ask(Priority.LAST, "late"),
            ask(Priority.USUAL, "usual"),
            ask(Priority.FIRST, "urgent"),
            ask(Priority.FIRST, "as urgent"),
        )
    assert answered == ["whoever comes", "urgent", "as urgent", "usual", "late"]


async def test_two_connections_answer_at_once(database: str) -> None:
    """Each has something to do while the other waits."""
    async with _pool(database) as pool, pool.acquire() as one, pool.acquire() as other:
        asked = Connections(one)
        asked.add(other)
        meet = "SELECT pg_backend_pid() AS pid, pg_sleep(0.1)"
        found = await together(asked.fetch(meet), asked.fetch(meet))
    assert len({rows[0]["pid"] for rows in found}) == 2


async def test_who_gives_up_leaves_the_turn_to_others(database: str) -> None:
    """Whether it was given to them at that moment or not."""
    async with _pool(database) as pool, pool.acquire() as connection, asyncio.TaskGroup() as tasks:
        asked = Connections(connection)
        first = tasks.create_task(asked.fetch("SELECT pg_sleep(0.1)"))
        await asyncio.sleep(0)
        impatient = tasks.create_task(asked.fetch("SELECT 1", priority=Priority.FIRST))
        late = tasks.create_task(asked.fetch("SELECT 1"))
        patient = tasks.create_task(asked.fetch("SELECT 3 AS three", priority=Priority.LAST))
        await asyncio.sleep(0)
        impatient.cancel()
        first.add_done_callback(lambda _: late.cancel())  # the connection is given to it by then
        assert await patient == [{"three": 3}]
    assert (impatient.cancelled(), late.cancelled()) == (True, True)


async def test_a_refusal_gives_the_connection_back(database: str) -> None:
    """The next question is answered."""
    async with _pool(database) as pool, pool.acquire() as connection:
        asked = Connections(connection)
        with pytest.raises(asyncpg.UndefinedTableError):
            await asked.fetch("SELECT 1 FROM nowhere")
        assert await asked.fetch("SELECT 1 AS one") == [{"one": 1}]


def _pool(dsn: str) -> "asyncpg.Pool[asyncpg.Record]":
    return asyncpg.create_pool(dsn, min_size=1, max_size=2)
