"""Tests of the rollups in schema.sql: every sum is that of the rows, in any zone and any range."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.core.model import LedgerRow
from proxy.ledger import Ledger
from tests.conftest import NewDatabase
from tests.fakes.rows import ledger_row, unavailable_row, unpriced_row

ZONES = ("UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe")
SUMS = "count(DISTINCT user_id), sum(calls), sum(total_tokens), sum(cost_usd), max(last_call)"
FROM_ROWS = """
SELECT
    user_id, count(*), sum(total_tokens)::bigint, sum(cost_usd), min(created_at), max(created_at)
FROM calls
WHERE (created_at AT TIME ZONE $3)::date >= $1
    AND (created_at AT TIME ZONE $3)::date < $2
    AND ($4::text IS NULL OR endpoint = $4)
GROUP BY user_id
ORDER BY user_id
"""
FROM_SPANS = """
SELECT
    user_id, sum(calls)::bigint, sum(total_tokens)::bigint, sum(cost_usd), min(first_call),
    max(last_call)
FROM spans_between($1, $2)
JOIN user_spans USING (span, start)
GROUP BY user_id
ORDER BY user_id
"""
FROM_FEATURE_SPANS = """
SELECT
    user_id, sum(calls)::bigint, sum(total_tokens)::bigint, sum(cost_usd), min(first_call),
    max(last_call)
FROM spans_between($1, $2, true)
JOIN feature_spans USING (span, start)
WHERE endpoint = $3
GROUP BY user_id
ORDER BY user_id
"""


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    """Return a connection to an empty ledger."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def fill(dsn: str, rows: list[LedgerRow], zone: str = "UTC") -> None:
    """Insert rows into a ledger whose days begin in a zone."""
    ledger = Ledger(dsn, report_timezone=zone)
    await ledger.set_report_timezone()
    assert (await ledger.insert(rows)).inserted == len(rows)
    await ledger.close()


async def fold(connection: asyncpg.Connection) -> int:
    """Fold all that is over, and return how many spans that were."""
    folded = 0
    while await connection.fetchval("SELECT fold_span()"):
        folded += 1
    return folded


async def table(connection: asyncpg.Connection, query: str, *values: object) -> list[object]:
    """Return what a query finds, as plain tuples."""
    return [tuple(record) for record in await connection.fetch(query, *values)]


def calls(first: date, days: int, *, each: int = 3) -> list[LedgerRow]:
    """Return some calls of a few users on every day."""
    begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
    makers = (ledger_row, unpriced_row, unavailable_row)
    return [
        makers[number % 3](
            number,
            created_at=begin + timedelta(minutes=number * 1440 / each, milliseconds=number),
            user_id=f"u{number % 7}" if number % 5 else None,
            endpoint=("hint", "grade", None)[number % 3 - number % 2],
        )
        for number in range(days * each)
    ]


@pytest.mark.parametrize("zone", ZONES)
async def test_any_range_is_exact_in_any_zone(
    database: str, connection: asyncpg.Connection, zone: str
) -> None:
    """Also where days begin at half past, have 23.5 hours, or are folded into longer spans."""
    await fill(database, calls(date(2024, 9, 28), 40), zone)
    for step in range(3):
        for first, past in (
            (date(2024, 1, 1), date(2026, 1, 1)),
            (date(2024, 10, 6), date(2024, 10, 7)),
            (date(2024, 9, 30), date(2024, 11, 4)),
            (date(2024, 10, 5), date(2024, 10, 5)),
        ):
            expected = await table(connection, FROM_ROWS, first, past, zone, None)
            assert await table(connection, FROM_SPANS, first, past) == expected
            expected = await table(connection, FROM_ROWS, first, past, zone, "hint")
            assert await table(connection, FROM_FEATURE_SPANS, first, past, "hint") == expected
        if step == 0:
            assert await fold(connection) > 50
            years = "SELECT count(*) FROM spans WHERE span = 'year'"
            assert await connection.fetchval(years) == 1
        if step == 1:  # what comes late is counted at once
            late = [ledger_row(7_000_000, created_at=datetime(2024, 10, 6, 12, tzinfo=UTC))]
            await fill(database, late, zone)
            around = "SELECT span FROM spans WHERE start <= '2024-10-06' AND past > '2024-10-06'"
            assert await table(connection, around) == []
    assert await fold(connection) == 7  # day, users, pentad, dekad, month, quarter, year


async def test_a_folded_year_is_read_in_a_few_spans(
    database: str, connection: asyncpg.Connection
) -> None:
    """That is what makes a long range cheap."""
    await fill(database, calls(date(2024, 1, 1), 3) + calls(date(2024, 2, 28), 133))
    await fold(connection)
    whole = "SELECT * FROM spans_between('2023-05-01', '2026-01-01')"
    assert await table(connection, whole) == [("year", date(2024, 1, 1))]
    query = "SELECT * FROM spans_between('2024-02-28', '2024-07-08'{})"
    assert await table(connection, query.format("")) == [
        ("day", date(2024, 2, 28)),
        ("day", date(2024, 2, 29)),
        ("month", date(2024, 3, 1)),
        ("quarter", date(2024, 4, 1)),
        ("pentad", date(2024, 7, 1)),
        ("day", date(2024, 7, 6)),
        ("day", date(2024, 7, 7)),
    ]
    assert await table(connection, query.format(", true")) == [
        ("open", date(2024, 2, 28)),
        ("open", date(2024, 2, 29)),
        ("month", date(2024, 3, 1)),
        ("quarter", date(2024, 4, 1)),
        *[("open", date(2024, 7, day)) for day in range(1, 8)],
    ]


async def test_years_without_calls_are_passed_over(
    database: str, connection: asyncpg.Connection
) -> None:
    """One row that came with a clock of 1970 is one span more, and not twenty thousand days."""
    await fill(database, calls(date(1970, 1, 5), 1) + calls(date(2024, 2, 28), 2))
    spans = "SELECT * FROM spans_between('-infinity', 'infinity', {})"
    packed = "SELECT kind, start, past FROM packed_between('-infinity', 'infinity')"
    days = [date(1970, 1, 5), date(2024, 2, 28), date(2024, 2, 29)]
    opened = [("open", day) for day in days]
    for by_feature in ("false", "true"):
        assert await table(connection, spans.format(by_feature)) == opened
    assert await table(connection, packed) == [
        ("open", day, day + timedelta(days=1)) for day in days
    ]
    await fold(connection)
    years = [("year", date(1970, 1, 1)), ("year", date(2024, 1, 1))]
    assert await table(connection, spans.format("false")) == years
    while await connection.fetchval("SELECT pack_span()"):
        pass
    assert await table(connection, packed) == [
        ("packed", date(1970, 1, 1), date(1971, 1, 1)),
        ("packed", date(2024, 1, 1), date(2025, 1, 1)),
    ]


async def test_today_is_not_folded(database: str, connection: asyncpg.Connection) -> None:
    """Its calls are still coming; a day is folded an hour after it is over."""
    now = await connection.fetchval("SELECT now()")
    await fill(database, [ledger_row(1, created_at=now)])
    assert await fold(connection) == 0
    assert await table(connection, "SELECT span FROM spans_between('-infinity', 'infinity')") == [
        ("open",)
    ]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    zone=st.sampled_from(ZONES),
    moments=st.lists(
        st.datetimes(datetime(2023, 12, 30), datetime(2024, 4, 8)),  # noqa: DTZ001
        max_size=30,
    ),
    first=st.dates(date(2023, 12, 28), date(2024, 4, 10)),
    length=st.integers(0, 110),
)
async def test_random_ledgers_add_up(
    new_database: NewDatabase, zone: str, moments: list[datetime], first: date, length: int
) -> None:
    """Whatever is called and whichever days are asked for."""
    dsn = await new_database()
    rows = [
        ledger_row(
            number,
            created_at=moment.replace(microsecond=0, tzinfo=UTC),
            user_id=(None, "a", "b")[number % 3],
            endpoint=(None, "hint")[number % 2],
        )
        for number, moment in enumerate(moments)
    ]
    await fill(dsn, rows, zone)
    connection = await asyncpg.connect(dsn)
    past = first + timedelta(days=length)
    for _ in range(2):
        expected = await table(connection, FROM_ROWS, first, past, zone, None)
        assert await table(connection, FROM_SPANS, first, past) == expected
        expected = await table(connection, FROM_ROWS, first, past, zone, "hint")
        assert await table(connection, FROM_FEATURE_SPANS, first, past, "hint") == expected
        await fold(connection)
    await connection.close()


async def test_summaries_are_the_same_folded_or_not(
    database: str, connection: asyncpg.Connection
) -> None:
    """Whoever reads the four views need not know of spans."""
    await fill(database, calls(date(2025, 10, 1), 70))
    names = ("user", "monthly", "endpoint", "daily")
    before = [
        set(await table(connection, f"SELECT * FROM {name}_usage_summary"))  # noqa: S608
        for name in names
    ]
    assert await fold(connection) > 80
    for name, expected in zip(names, before, strict=True):
        query = f"SELECT * FROM {name}_usage_summary"  # noqa: S608
        assert set(await table(connection, query)) == expected, name
    assert len(before[0]) == 8
    assert {row[0] for row in before[1]} == {  # type: ignore[index]
        date(2025, 10, 1), date(2025, 11, 1), date(2025, 12, 1)
    }  # fmt: skip


async def test_how_calls_ended_and_how_long_they_took(
    database: str, connection: asyncpg.Connection
) -> None:
    """By classes of duration, of which each bound is at most 19 % above the one before."""
    await fill(
        database,
        [
            ledger_row(1, latency_ms=1000, time_to_first_byte_ms=1),
            ledger_row(2, latency_ms=1020, time_to_first_byte_ms=0),
            ledger_row(3, latency_ms=1_800_000_000, time_to_first_byte_ms=None),
            ledger_row(4, outcome="upstream_error", status=500),
            ledger_row(5, outcome="upstream_error", status=None),
        ],
    )
    ended = "SELECT outcome, status, calls FROM answer_days ORDER BY outcome, status"
    assert await table(connection, ended) == [
        ("ok", 200, 3),
        ("upstream_error", 500, 1),
        ("upstream_error", None, 1),
    ]
    took = "SELECT measure, at_most_ms, calls FROM duration_days ORDER BY measure, at_most_ms"
    assert await table(connection, took) == [
        ("first_byte", 1, 2),
        ("latency", 1024, 2),
        ("latency", 1_805_811_302, 1),
    ]


async def test_some_days_are_made_anew_and_the_others_stay(
    database: str, connection: asyncpg.Connection
) -> None:
    """In bounded time, and without the rows of the other days, which may be gone."""
    await fill(database, calls(date(2026, 9, 29), 35), "Asia/Kathmandu")
    await fold(connection)
    names = (
        "usage_by_quarter_hour", "usage_by_day", "usage_by_user_day", "usage_by_month",
        "usage_by_answer_day", "usage_by_duration_day",
    )  # fmt: skip
    kept = [set(await table(connection, f"TABLE {name}")) for name in names]
    for name in names[:3]:
        await connection.execute(f"UPDATE {name} SET calls = 77 WHERE first_call > '2026-10-20'")  # noqa: S608
    await connection.execute("DELETE FROM user_api_usage WHERE created_at < '2026-10-01'")
    await connection.execute("SELECT rebuild_rollups('2026-10-20', '2026-11-05')")
    assert [set(await table(connection, f"TABLE {name}")) for name in names] == kept
    assert await connection.fetchval("SELECT max(past) FROM spans") <= date(2026, 10, 20)
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
        await connection.execute("SELECT rebuild_rollups('2026-10-01', '2026-11-05')")


async def test_rows_that_anybody_inserts_are_counted(connection: asyncpg.Connection) -> None:
    """Also corrections, and rows that come in by SQL."""
    await connection.execute(
        """
        INSERT INTO user_api_usage (
            event_id, created_at, api_path, operation_name, upstream, usage_source, outcome,
            cost_usd, price_id, catalog_version, corrects
        )
        VALUES
            (gen_random_uuid(), now(), '/', 'chat', 'x', 'reported', 'ok', 0.5, 'p', 'c', NULL),
            (gen_random_uuid(), now(), '/', 'chat', 'x', 'reported', 'ok', -0.2, 'p', 'c',
            gen_random_uuid())
        """
    )
    for view in ("days", "user_days", "quarter_hours", "user_spans", "ledger_status"):
        query = f"SELECT sum(calls), sum(cost_usd) FROM {view}"  # noqa: S608
        assert await table(connection, query) == [(1, Decimal("0.3"))], view


@pytest.mark.parametrize("batch", [20, 500])
async def test_sums_of_days_that_are_over_lie_in_the_order_of_users(
    database: str, connection: asyncpg.Connection, batch: int
) -> None:
    """However many came at once; and a few that come late are not worth laying all of them anew."""
    begin = datetime(2025, 3, 3, tzinfo=UTC)
    rows = [
        ledger_row(
            number,
            created_at=begin + timedelta(seconds=40 * number),
            user_id=f"u{number * 7919 % 251:03d}",
            endpoint=f"e{number * 31 % 9}",
        )
        for number in range(2000)
    ]
    for first in range(0, len(rows), batch):
        await fill(database, rows[first : first + batch])
    as_they_lie = "SELECT * FROM usage_by_user_day ORDER BY ctid"
    by_user = "SELECT * FROM usage_by_user_day ORDER BY user_id, endpoint, model"
    sums = await table(connection, by_user)
    assert await table(connection, as_they_lie) != sums
    await fold(connection)
    assert await table(connection, as_they_lie) == sums
    span = "SELECT user_id, endpoint, model FROM usage_by_feature_span WHERE span = 'dekad'"
    in_order = f"{span} ORDER BY user_id, endpoint, model"
    assert await table(connection, f"{span} ORDER BY ctid") == await table(connection, in_order)
    places = """
        SELECT user_id, endpoint, model, ctid FROM usage_by_user_day
        WHERE endpoint <> 'late' ORDER BY 1, 2, 3
    """
    before = await table(connection, places)
    late = [
        ledger_row(9000 + number, created_at=begin, user_id=f"u{number:03d}", endpoint="late")
        for number in range(9)
    ]
    await fill(database, late)
    assert await fold(connection) > 0
    assert await table(connection, places) == before


async def test_sums_that_are_made_anew_lie_in_the_order_of_users(
    database: str, connection: asyncpg.Connection
) -> None:
    """As those that were folded."""
    for first in range(0, 60, 6):
        await fill(database, calls(date(2025, 3, 3), 1, each=60)[first : first + 6])
    as_they_lie = "SELECT * FROM usage_by_user_day ORDER BY ctid"
    by_user = "SELECT * FROM usage_by_user_day ORDER BY user_id, endpoint, model"
    assert await table(connection, as_they_lie) != await table(connection, by_user)
    await connection.execute("SELECT rebuild_rollups()")
    assert await table(connection, as_they_lie) == await table(connection, by_user)
