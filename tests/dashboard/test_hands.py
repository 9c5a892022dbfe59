import asyncio

import asyncpg
import pytest

from dashboard.hands import Hands, Turn
from dashboard.pooling import Pool
from dashboard.together import together


async def test_who_is_urgent_is_answered_before_who_waits_longer(database: str) -> None:
    """And what goes onto the page as it is comes last."""
    pool = Pool(database, connections=1)
    answered = []
    async with pool.taken() as connection:
        hands = Hands(connection)

        async def ask(turn: Turn, name: str) -> None:
            await hands.fetch("SELECT 1", turn=turn)
            answered.append(name)

        await together(
            ask(Turn.LAST, "whoever comes"),
            ask(Turn.LAST, "late"),
            ask(Turn.USUAL, "usual"),
            ask(Turn.FIRST, "urgent"),
            ask(Turn.FIRST, "as urgent"),
        )
    await pool.close()
    assert answered == ["whoever comes", "urgent", "as urgent", "usual", "late"]


async def test_two_hands_answer_at_once(database: str) -> None:
    """Each has something to do while the other waits."""
    pool = Pool(database, connections=2)
    async with pool.taken() as one, pool.taken() as other:
        hands = Hands(one)
        hands.add(other)
        meet = "SELECT pg_backend_pid() AS pid, pg_sleep(0.1)"
        found = await together(hands.fetch(meet), hands.fetch(meet))
    await pool.close()
    assert len({rows[0]["pid"] for rows in found}) == 2


async def test_who_gives_up_leaves_the_turn_to_others(database: str) -> None:
    """Whether it was given to them at that moment or not."""
    pool = Pool(database, connections=1)
    async with pool.taken() as connection, asyncio.TaskGroup() as tasks:
        hands = Hands(connection)
        first = tasks.create_task(hands.fetch("SELECT pg_sleep(0.1)"))
        await asyncio.sleep(0)
        impatient = tasks.create_task(hands.fetch("SELECT 1", turn=Turn.FIRST))
        late = tasks.create_task(hands.fetch("SELECT 1"))
        patient = tasks.create_task(hands.fetch("SELECT 3 AS three", turn=Turn.LAST))
        await asyncio.sleep(0)
        impatient.cancel()
        first.add_done_callback(lambda _: late.cancel())  # the connection is given to it by then
        assert await patient == [{"three": 3}]
    await pool.close()
    assert (impatient.cancelled(), late.cancelled()) == (True, True)


async def test_a_refusal_gives_the_connection_back(database: str) -> None:
    """The next question is answered."""
    pool = Pool(database, connections=1)
    async with pool.taken() as connection:
        hands = Hands(connection)
        with pytest.raises(asyncpg.UndefinedTableError):
            await hands.fetch("SELECT 1 FROM nowhere")
        assert await hands.fetch("SELECT 1 AS one") == [{"one": 1}]
    await pool.close()
