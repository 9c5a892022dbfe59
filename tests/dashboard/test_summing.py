from datetime import date, timedelta
from zoneinfo import ZoneInfo

import asyncpg

from dashboard.filters import Filter
from dashboard.queries import Ledger
from dashboard.snapshot import Snapshot
from tests.dashboard.conftest import fold, record
from tests.fakes.rows import MOMENT, ledger_row


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
