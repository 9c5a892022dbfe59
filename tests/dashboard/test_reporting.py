from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from dashboard.errors import ParameterError
from dashboard.filters import Filter
from dashboard.parsing import parse
from dashboard.queries import Ledger
from dashboard.report import Report
from dashboard.reporting import Reporter, periods
from dashboard.tables import SORTABLE
from proxy.ledger import Ledger as Writer
from tests.dashboard.conftest import fold, record
from tests.fakes.rows import MOMENT, ledger_row

COST = Decimal("0.000285000001")
NOW = MOMENT + timedelta(hours=1)


def _filter(**pairs: str) -> Filter:
    return parse(
        list(pairs.items()),
        now=NOW,
        report_zone=ZoneInfo("UTC"),
        zones={"Asia/Kathmandu": ZoneInfo("Asia/Kathmandu")},
        columns=(*SORTABLE, "created_at"),
    )


async def _ask(dsn: str, question: str, **pairs: str) -> Report:
    ledger = Ledger(dsn)
    async with ledger.snapshot() as snapshot:
        report = await getattr(Reporter(snapshot, now=NOW), question)(_filter(**pairs))
    await ledger.close()
    assert isinstance(report, Report)
    return report


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize("folds", [0, 1000], ids=["open", "folded"])
async def test_pages_of_users_leave_nobody_out(database: str, folds: int) -> None:
    """Each begins after the last row of the one before; the totals are of all.

    Where users have numbers, halves of them are looked through at the same time.
    """
    count = 120
    rows = [
        ledger_row(n, user_id=f"u{n % 117:03d}" if n else None, cost_usd=COST * (n % 5))
        for n in range(count)
    ]
    await record(database, rows)
    await fold(database, folds)
    for sort in ("-cost_usd", "cost_usd", "name", "-name", "-last_call"):
        wanted, seen, totals = _filter(sort=sort), [], set()
        ledger = Ledger(database)
        async with ledger.snapshot() as snapshot:
            while True:
                table = (await Reporter(snapshot, now=NOW).users(wanted)).tables[0]
                seen += [row["user_id"] for row in table.records()]
                totals.add(table.total()["calls"])
                if table.next_after is None:
                    break
                wanted = wanted.with_(after=table.next_after)
        await ledger.close()
        assert len(seen) == len(set(seen)) == 118, sort
        assert totals == {count}


async def test_a_user_is_compared_with_the_days_before(database: str) -> None:
    """As many days, right before."""
    before = MOMENT - timedelta(days=8)
    await record(database, [ledger_row(0), ledger_row(1, created_at=before), ledger_row(2)])
    report = await _ask(database, "users", range="7d", compare="previous")
    [row] = report.tables[0].records()
    assert (row["calls"], row["previous_calls"]) == (2, 1)
    assert row["previous_cost_usd"] == COST


async def test_users_who_are_found_are_compared_with_themselves(database: str) -> None:
    """Their total with the total of all who are found; calls without a user with such calls."""
    before = MOMENT - timedelta(days=2)
    people = ("ada", "adele", None, "bob")
    rows = [
        *(ledger_row(n, user_id=people[n % 4], created_at=before) for n in range(4)),
        *(ledger_row(10 + n, user_id=people[n % 4]) for n in range(8)),
        ledger_row(30, user_id="adam", created_at=before),
    ]
    await record(database, rows)
    first, last = ((MOMENT - timedelta(days=days_ago)).date().isoformat() for days_ago in (1, 0))
    days = {"from": first, "to": last, "compare": "previous", "sort": "name"}
    columns = ("user_id", "calls", "previous_calls")
    (table,) = (await _ask(database, "users", **days)).tables
    assert [tuple(row[column] for column in columns) for row in table.records()] == [
        ("ada", 2, 1),
        ("adele", 2, 1),
        ("bob", 2, 1),
        (None, 2, 1),
    ]
    total = table.total()
    assert (total["calls"], total["previous_calls"]) == (8, 5)
    (table,) = (await _ask(database, "users", **days, search="AD")).tables
    assert [row["user_id"] for row in table.records()] == ["ada", "adele"]
    total = table.total()
    assert (total["calls"], total["previous_calls"]) == (4, 3)


async def test_money_of_nothing_is_money(database: str) -> None:
    """In JSON it is a text, as all money is."""
    await record(database, [ledger_row(0)])
    for question in ("users", "overview", "endpoints", "models", "daily"):
        report = await _ask(database, question, endpoint="nobody")
        for table in report.tables:
            if "cost_usd" in table.total():
                assert isinstance(table.total()["cost_usd"], Decimal), (question, table.name)


async def test_the_overview_says_what_has_passed_of_each_period(database: str) -> None:
    """Yesterday until this hour, last month until this day and hour."""
    moments = [
        MOMENT,
        MOMENT - timedelta(days=1),
        MOMENT - timedelta(days=1) + timedelta(hours=3),  # later than now, yesterday
        MOMENT - timedelta(days=31),
    ]
    await record(database, [ledger_row(n, created_at=at) for n, at in enumerate(moments)])
    rows = (await _ask(database, "overview")).table("periods").records()
    assert [(row["period"], row["calls"], row["previous_calls"]) for row in rows] == [
        ("overall", 4, None),
        ("today", 1, 1),
        ("this_month", 3, 1),
    ]


@pytest.mark.parametrize(
    ("compare", "before"), [("previous", timedelta(days=7)), ("year", timedelta(days=364))]
)
async def test_a_day_is_compared_with_that_of_the_same_place(
    database: str, compare: str, before: timedelta
) -> None:
    """The second of the range with the second of the one before; the total with all of it."""
    days = (MOMENT, MOMENT - timedelta(days=3), MOMENT - before - timedelta(days=3))
    gone = MOMENT - before - timedelta(days=4)
    rows = [ledger_row(n, created_at=day) for n, day in enumerate((*days, days[2], gone))]
    await record(database, rows)
    report = await _ask(database, "daily", range="7d", compare=compare)
    found = [dict(row) for row in report.tables[0].records()]
    assert [(row["day"], row["calls"], row["previous_calls"]) for row in found] == [
        (days[1].date(), 1, 2),
        (days[0].date(), 1, 0),
    ]
    total = report.tables[0].total()
    assert (total["calls"], total["previous_calls"], total["previous_cost_usd"]) == (2, 3, COST * 3)
    assert "previous_calls" not in (await _ask(database, "daily", range="7d")).tables[0].total()


@pytest.mark.parametrize(
    "pairs", [{}, {"model": "gpt-4o-mini-2024-07-18"}, {"tz": "Asia/Kathmandu"}]
)
async def test_active_users_are_compared_with_the_same_part_of_the_day(
    database: str, pairs: dict[str, str]
) -> None:
    """Who came later yesterday is not yet due today; a quarter of an hour is one moment."""
    yesterday, hour = MOMENT - timedelta(days=1), timedelta(hours=1)
    came = {
        "early": (yesterday, MOMENT),
        "twice": (yesterday - hour, yesterday + 4 * hour),
        "late": (yesterday + 3 * hour,),
        "today": (MOMENT,),
    }
    rows = [(name, at) for name, moments in came.items() for at in moments]
    await record(
        database,
        [ledger_row(n, user_id=name, created_at=at) for n, (name, at) in enumerate(rows)],
    )
    found = (await _ask(database, "overview", **pairs)).table("periods").records()
    [today] = [row for row in found if row["period"] == "today"]
    assert (today["calls"], today["previous_calls"]) == (2, 2)
    assert (today["active_users"], today["previous_active_users"]) == (2, 2)
    [month] = [row for row in found if row["period"] == "this_month"]
    assert (month["active_users"], month["previous_active_users"]) == (4, 0)


async def test_the_month_before_is_counted_up_to_this_time_of_its_day(database: str) -> None:
    """By sets of users of its whole days, and by who had come on the last one."""
    then = MOMENT - timedelta(days=31)  # the same day of the month before
    moments = {
        "long ago": then - timedelta(days=9),
        "before": then - timedelta(hours=1),
        "both": then,
        "after": then + timedelta(hours=3),
        "next day": then + timedelta(days=1),
    }
    rows = [
        ledger_row(n, user_id=name, created_at=at) for n, (name, at) in enumerate(moments.items())
    ]
    rows.append(ledger_row(9, user_id="both", created_at=then - timedelta(days=3)))
    await record(database, rows)
    writer = Writer(database, report_timezone="UTC")
    for folded in (False, True):
        while folded and await writer.fold_span():
            pass
        found = (await _ask(database, "overview")).table("periods").records()
        [month] = [row for row in found if row["period"] == "this_month"]
        assert (month["previous_calls"], month["previous_active_users"]) == (4, 3)
    await writer.close()


async def test_what_is_in_no_sum_is_told(database: str) -> None:
    """Stretches of time that touch the range, whoever asks about whom; objects by their filter."""
    await record(database, [ledger_row(0), ledger_row(1, user_id="bob")])
    await _execute(
        database,
        """
        INSERT INTO metering_gap (writer, started_at, ended_at, calls)
        VALUES
            ('worker-0', '2026-11-20 10:00Z', '2026-11-20 10:05Z', 12),
            ('worker-1', '2026-08-20 10:00Z', '2026-08-20 10:05Z', 3);
        INSERT INTO deferred_object (
            upstream, object_id, kind, maker, made_at, is_over, charged
        )
        SELECT 'api.openai.com', user_id, 'batch', event_id, created_at, false, 'open'
        FROM user_api_usage;
        """,
    )
    report = await _ask(database, "overview")
    [gap] = report.table("gaps").records()
    assert (gap["calls"], gap["writer"]) == (12, "worker-0")
    [objects] = report.table("open_objects").records()
    assert (objects["kind"], objects["objects"]) == ("batch", 2)
    report = await _ask(database, "overview", user="bob", range="today")
    assert report.table("gaps").rows == ()
    [objects] = report.table("open_objects").records()
    assert objects["objects"] == 1
    report = await _ask(database, "overview", model="gpt-none")
    assert report.table("open_objects").rows == ()


async def test_days_of_another_zone_are_its_own(database: str) -> None:
    """A quarter to midnight UTC is the next day in Kathmandu."""
    late = datetime(2026, 11, 21, 18, 20, tzinfo=UTC)
    early = datetime(2026, 11, 21, 18, 10, tzinfo=UTC)
    await record(database, [ledger_row(0, created_at=late), ledger_row(1, created_at=early)])
    for question in ("daily", "users"):
        pairs = {"from": "2026-11-22", "to": "2026-11-22", "tz": "Asia/Kathmandu"}
        report = await _ask(database, question, **pairs)
        assert report.tables[0].total()["calls"] == 1


async def test_users_of_many_single_days_elsewhere_are_unknown(database: str) -> None:
    """Not 0, and the table says so; those of the whole range are known."""
    await record(database, [ledger_row(0), ledger_row(1, user_id="bob")])
    table = (await _ask(database, "daily", range="this_year", tz="Asia/Kathmandu")).tables[0]
    assert [row["users"] for row in table.records()] == [None]
    assert table.total()["users"] == 2
    assert "shorter ranges, or in UTC" in table.title


async def test_users_of_a_tier_are_unknown_over_long_ranges(database: str) -> None:
    """Rows alone know tiers, and all of a year's would be read; what is shorter is counted."""
    await record(database, [ledger_row(0), ledger_row(1, user_id="bob", service_tier="flex")])
    periods = (await _ask(database, "overview", tier="flex")).table("periods").records()
    assert [(row["period"], row["calls"], row["active_users"]) for row in periods] == [
        ("overall", 1, None),
        ("today", 1, 1),
        ("this_month", 1, 1),
    ]
    for question in ("endpoints", "daily"):
        for days, users in (("all", None), ("7d", 1)):
            table = (await _ask(database, question, tier="flex", range=days)).tables[0]
            assert [row["users"] for row in table.records()] == [users]
            assert table.total()["users"] == users
            assert table.total()["calls"] == 1
            assert table.title.endswith("; users only for shorter ranges") is (users is None)


async def test_a_total_is_that_of_the_endpoints_found(database: str) -> None:
    """Also of one user, whose name the search is not for."""
    await record(database, [ledger_row(0, user_id="bob", endpoint="hint")])
    for search, calls in (("hin", 1), ("bob", 0)):
        pairs = {"user": "bob", "search": search, "range": "all"}
        table = (await _ask(database, "endpoints", **pairs)).tables[0]
        assert [row["calls"] for row in table.records()] == [1] * calls
        assert (table.total()["calls"], table.total()["users"]) == (calls, calls)


@pytest.mark.parametrize("folds", [0, 3, 1000], ids=["open", "folded", "packed"])
async def test_users_of_several_models_count_once(database: str, folds: int) -> None:
    """By day, by endpoint and in all; who used another one, or none, does not."""
    day = timedelta(days=1)
    used = (("ada", "a", 9), ("bob", "a", 8), ("bob", "b", 8), ("cyd", "c", 8), ("dan", None, 8))
    rows = [
        ledger_row(n, user_id=user, model=model, created_at=MOMENT - days_ago * day)
        for n, (user, model, days_ago) in enumerate(used)
    ]
    await record(database, rows)
    await fold(database, folds)
    ledger = Ledger(database)
    async with ledger.snapshot() as snapshot:
        wanted = _filter(range="all").with_(models=("b", "a"))
        assert await snapshot.active_users(wanted) == {(): 2}
        assert await snapshot.active_users(wanted, ("endpoint",)) == {("analyze_homework",): 2}
        first = (MOMENT - 9 * day).date()
        counted = {(first,): 1, (first + day,): 1}
        assert await snapshot.active_users(wanted, ("day",)) == counted
        elsewhere = wanted.with_(zone=ZoneInfo("Asia/Kathmandu"), first=first)
        assert await snapshot.active_users(elsewhere.with_(last=first)) == {(): 1}
        assert await snapshot.active_users(elsewhere.with_(last=first + day)) == {(): 2}
        without = wanted.with_(models=(), without=("model",))
        assert await snapshot.active_users(without) == {(): 1}
    await ledger.close()


async def test_calls_that_do_not_exist_are_not_looked_for(database: str) -> None:
    """What is known by days says so; what is rare is looked for in its days alone."""
    old = MOMENT - timedelta(days=200)
    rare = [ledger_row(n, model="rare", created_at=old + n * timedelta(days=3)) for n in range(9)]
    await record(database, [ledger_row(20), *rare])
    assert (await _ask(database, "calls", model="none", range="all")).tables[0].rows == ()
    for sort in ("-created_at", "created_at"):
        page = await _ask(database, "calls", model="rare", range="all", sort=sort)
        days = [row["created_at"] for row in page.tables[0].records()]
        assert days == sorted((row.created_at for row in rare), reverse=sort.startswith("-"))
    found = await _ask(database, "calls", model="rare", range="all", outcome="timeout")
    assert found.tables[0].rows == ()


async def test_one_user_and_one_endpoint_have_their_pages(database: str) -> None:
    """By day, by what they used, and how it ended."""
    await record(database, [ledger_row(0), ledger_row(1, outcome="timeout", status=None)])
    user = await _ask(database, "user", user="ada")
    assert [table.name for table in user.tables] == ["days", "endpoints", "calls"]
    assert len(user.table("calls").rows) == 2
    endpoint = await _ask(database, "endpoint", endpoint="analyze_homework")
    outcomes = [row["outcome"] for row in endpoint.table("outcomes").records()]
    assert outcomes == ["ok", "timeout"]
    with pytest.raises(ParameterError, match="user"):
        await _ask(database, "user")
    with pytest.raises(ParameterError, match="endpoint"):
        await _ask(database, "endpoint")


async def test_a_nameless_user_has_a_page_too(database: str) -> None:
    """For the calls that named none."""
    await record(database, [ledger_row(0), ledger_row(1, user_id=None)])
    report = await _ask(database, "user", without="user")
    assert report.table("days").total()["calls"] == 1


def test_periods_are_those_of_the_zone() -> None:
    """With the other filters kept."""
    found = periods(_filter(endpoint="hint", sort="-calls"), NOW)
    assert [(name, part.endpoints) for name, part in found] == [
        ("overall", ("hint",)),
        ("today", ("hint",)),
        ("this_month", ("hint",)),
    ]
