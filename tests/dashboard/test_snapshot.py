import asyncio

import pytest

from dashboard.errors import NotFoundError
from dashboard.filters import Filter
from dashboard.queries import Ledger
from dashboard.snapshot import Snapshot, together
from tests.dashboard.conftest import ROWS, record
from tests.fakes.rows import MOMENT, ledger_row


async def _answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def _fail() -> int:
    await asyncio.sleep(0)
    raise NotFoundError("There is none.")


async def test_questions_are_answered_in_their_order() -> None:
    """Whichever is done first."""
    assert await together(_answer(1), _answer(2), _answer(3)) == [1, 2, 3]


async def test_the_first_that_fails_ends_all_of_them() -> None:
    """With its own error; nobody goes on asking a connection that is given back."""
    waiting = asyncio.Event()

    async def wait() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            waiting.set()
        return 0

    with pytest.raises(NotFoundError):
        await together(wait(), _fail())
    assert waiting.is_set()


async def test_two_connections_see_the_same(database: str) -> None:
    """What comes between is in neither."""
    await record(database, ROWS)
    ledger = Ledger(database)
    async with ledger.snapshot() as snapshot:
        await record(database, [ledger_row(50)])
        await snapshot.take_another()
        counted = await together(*(snapshot.totals(_all(snapshot)) for _ in range(4)))
    await ledger.close()
    assert [row["calls"] for row in counted] == [len(ROWS)] * 4


async def test_one_page_at_a_time_has_a_second_connection(database: str) -> None:
    """The others answer with one, and wait for nobody."""
    await record(database, ROWS)
    ledger = Ledger(database)
    async with ledger.snapshot() as one, ledger.snapshot() as other:
        await one.take_another()
        await one.take_another()
        await other.take_another()
        assert await together(one.any_late(_all(one)), one.any_late(_all(one))) == [False, False]
        assert await together(other.any_late(_all(other))) == [False]
        assert (one.hands, other.hands) == (2, 1)
    await ledger.close()


def _all(snapshot: Snapshot) -> Filter:
    zone = snapshot.report_zone
    return Filter(range="all", first=None, last=MOMENT.date(), zone=zone, report_zone=zone)
