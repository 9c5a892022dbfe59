from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from dashboard import placing, selects
from dashboard.filters import Filter
from dashboard.queries import Ledger
from dashboard.snapshot import Snapshot
from dashboard.together import both
from tests.dashboard.conftest import empty, fold, record
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


@pytest.mark.parametrize(
    ("report_zone", "day"),
    [
        ("America/Havana", date(2026, 11, 1)),  # has two midnights
        ("Asia/Beirut", date(2026, 10, 25)),  # clocks are put back at midnight
        ("Pacific/Apia", date(2011, 12, 30)),  # there was none
    ],
)
async def test_no_row_is_lost_at_the_ends_of_a_range(
    database: str, report_zone: str, day: date
) -> None:
    """Whatever the clocks of the report's zone do at midnight."""
    noon = datetime.combine(day, time(12), tzinfo=UTC)
    moments = [noon + timedelta(minutes=30 * place) for place in range(-120, 120)]
    rows = [ledger_row(number, user_id="ada", created_at=at) for number, at in enumerate(moments)]
    await empty(database, report_zone)
    await record(database, rows, report_timezone=report_zone)
    ledger = Ledger(database)
    counted, expected = [], []
    async with ledger.snapshot() as snapshot:
        for zone in map(ZoneInfo, ("UTC", "America/New_York", "Asia/Kolkata")):
            for first, last in ((-1, -1), (0, 0), (0, 1), (1, 1), (-1, 2)):
                wanted = _day(day, zone).with_(
                    first=day + timedelta(days=first),
                    last=day + timedelta(days=last),
                    report_zone=snapshot.report_zone,
                )
                start = wanted.start or wanted.end
                found = await snapshot.sums_of_users(wanted, ["ada"])
                counted.append(found["ada"]["calls"] if found else 0)
                expected.append(sum(start <= at < wanted.end for at in moments))
    await ledger.close()
    assert counted == expected
    assert min(expected) > 0


async def test_an_open_day_is_read_once_for_ranks_and_for_who_was_there(database: str) -> None:
    """Who was there waits for the ranks of the same calls, which tell it."""
    await record(database, [ledger_row(50), ledger_row(51, user_id="bob")])
    asked: list[str] = []
    ledger = Ledger(database)
    async with ledger.snapshot() as snapshot:
        snapshot._connection.add_query_logger(lambda record: asked.append(record.query))  # noqa: SLF001 - no page tells
        wanted = _all(snapshot)
        ranked, users = await both(
            snapshot.first_users(wanted, limit=9), snapshot.active_users(wanted)
        )
    await ledger.close()
    assert (len(ranked.users), users) == (2, {(): 2})
    assert asked.count(placing.OF_DAYS["cost_usd"]) == 1
    assert selects.OPEN_ROSTERS not in asked
