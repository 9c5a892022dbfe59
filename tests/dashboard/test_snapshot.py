from datetime import date, timedelta
from zoneinfo import ZoneInfo

import asyncpg

from dashboard.filters import Filter
from dashboard.queries import Ledger
from dashboard.snapshot import Snapshot
from dashboard.together import together
from tests.dashboard.conftest import ROWS, fold, record
from tests.fakes.rows import MOMENT, ledger_row


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


async def test_a_search_has_the_sums_of_whom_it_finds(database: str) -> None:
    """Whether they have numbers yet or not, and 0 where it finds nobody."""
    new = [ledger_row(60 + number, user_id=f"new-{number}") for number in range(3)]
    await record(database, [ledger_row(50, created_at=MOMENT - timedelta(days=40)), *new])
    await fold(database, 1000)
    ledger = Ledger(database)
    async with ledger.snapshot() as snapshot:
        counted = [
            (await snapshot.totals(_all(snapshot).with_(search=words), search_in="user"))["calls"]
            for words in ("new", "NEW-2", "a", "nobody", "")
        ]
    await ledger.close()
    assert counted == [3, 1, 1, 0, 4]


async def test_a_row_that_counts_later_than_it_came_is_found_at_the_ends_of_a_range(
    database: str,
) -> None:
    """In another zone, where rows are read; and not where it came."""
    before = MOMENT - timedelta(days=3)
    await record(database, [ledger_row(50), ledger_row(51, user_id="late", created_at=before)])
    connection = await asyncpg.connect(database)
    late = "UPDATE user_api_usage SET accounted_at = $1 WHERE user_id = 'late'"
    await connection.execute(late, MOMENT)
    await connection.close()
    zone = ZoneInfo("Asia/Kolkata")
    ledger = Ledger(database)
    async with ledger.snapshot() as snapshot:
        counted = [
            (await snapshot.totals(asked))["calls"]
            for then in (MOMENT, before)
            for asked in [_day(then.astimezone(zone).date(), zone).with_(users=("late",))]
        ]
    await ledger.close()
    assert counted == [1, 0]


def _day(day: date, zone: ZoneInfo) -> Filter:
    return Filter(range="custom", first=day, last=day, zone=zone, report_zone=ZoneInfo("UTC"))


def _all(snapshot: Snapshot) -> Filter:
    zone = snapshot.report_zone
    return Filter(range="all", first=None, last=MOMENT.date(), zone=zone, report_zone=zone)
