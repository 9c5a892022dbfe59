"""Tests of proxy.rollups: a wrong sum is found and named, a right one is not."""

from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from proxy.errors import DatabaseError
from proxy.ledger import Ledger
from proxy.rollups import Period, findings, rebuild
from tests.fakes.rows import ledger_row, unavailable_row


async def ledger_of_two_months(dsn: str) -> asyncpg.Connection:
    """Fill a ledger, fold what is over, and return a connection to it."""
    ledger = Ledger(dsn, report_timezone="Asia/Kathmandu")
    await ledger.set_report_timezone()
    begin = datetime(2026, 9, 20, tzinfo=UTC)
    rows = [
        (unavailable_row if number % 5 == 0 else ledger_row)(
            number, created_at=begin + timedelta(hours=7 * number), user_id=f"u{number % 3}"
        )
        for number in range(120)
    ]
    assert (await ledger.insert(rows)).inserted == 120
    while await ledger.fold_span():
        pass
    assert len([packed async for packed in ledger.pack_spans()]) > 80
    await ledger.close()
    return await asyncpg.connect(dsn)


async def found(dsn: str, period: Period | None = None) -> list[str]:
    """Return what the check finds."""
    return [sentence async for sentence in findings(dsn, period or Period())]


async def test_right_sums_are_right(database: str) -> None:
    """Also where days begin at a quarter past, and months are folded."""
    await (await ledger_of_two_months(database)).close()
    assert await found(database) == []


@pytest.mark.parametrize(
    ("damage", "table"),
    [
        ("UPDATE usage_by_day SET calls = 77 WHERE day = '2026-10-02'", "usage_by_day"),
        ("UPDATE usage_by_quarter_hour SET cost_usd = NULL", "usage_by_quarter_hour"),
        ("UPDATE usage_by_month SET errors = errors + 1", "usage_by_month"),
        ("DELETE FROM usage_by_answer_day WHERE day = '2026-10-02'", "usage_by_answer_day"),
        ("UPDATE usage_by_duration_day SET calls = 0", "usage_by_duration_day"),
        ("UPDATE usage_by_user_span SET errors = 9 WHERE span = 'month'", "usage_by_user_span"),
        ("DELETE FROM usage_by_feature_span WHERE span = 'dekad'", "usage_by_feature_span"),
        ("DELETE FROM usage_by_day_users WHERE day = '2026-10-02'", "usage_by_day_users"),
        ("UPDATE usage_by_day_users SET users = ~ users", "usage_by_day_users"),
        ("UPDATE usage_span SET users = 9 WHERE span = 'month'", "usage_span"),
        ("UPDATE usage_span SET users = 9 WHERE span = 'users'", "usage_span"),
        (
            "UPDATE usage_packed_span SET calls = set_byte(calls, 0, 9) WHERE hour = 12",
            "usage_packed_span, start 2026-09-20, past 2026-09-21, hour 12, is_total False",
        ),
        (
            "UPDATE usage_packed_span SET cost_scale = 2 WHERE past - start > 80 AND is_total",
            "usage_packed_span, start 2026-07-01, past 2026-10-01, hour NULL, is_total True",
        ),
        (
            "DELETE FROM usage_packed_span WHERE start = '2026-10-02' AND hour IS NULL",
            "usage_packed_span has no sums for start 2026-10-02",
        ),
        (
            "DELETE FROM usage_by_day WHERE day BETWEEN '2026-10-01' AND '2026-10-31'",
            "usage_by_day",
        ),
        ("DELETE FROM usage_by_day; DELETE FROM usage_by_user_day", "usage_by_user_day"),
        (
            "INSERT INTO usage_by_answer_day VALUES ('2030-01-01', 'e', 'm', 'ok', 200, 7)",
            "usage_by_answer_day has sums for day 2030-01-01",
        ),
    ],
)
async def test_a_wrong_sum_is_named(database: str, damage: str, table: str) -> None:
    """With the table, the key, and both numbers."""
    connection = await ledger_of_two_months(database)
    await connection.execute(damage)
    await connection.close()
    sentences = await found(database)
    assert any(sentence.startswith(table) for sentence in sentences)


async def test_a_finding_says_what_should_be_there(database: str) -> None:
    """So that somebody can see what has happened."""
    ledger = Ledger(database, report_timezone="UTC")
    await ledger.insert([ledger_row(1), ledger_row(2)])
    await ledger.close()
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE usage_by_user_day SET calls = 3, cost_usd = NULL")
    await connection.execute("DELETE FROM usage_by_day")
    await connection.close()
    homework = "endpoint analyze_homework, model gpt-4o-mini-2024-07-18"
    missing, wrong = await found(database)
    assert missing == (
        f"usage_by_day has no sums for day 2026-11-22, {homework}, service_tier default, "
        "operation_name chat, and the ledger has rows for them"
    )
    assert wrong == (
        f"usage_by_user_day, day 2026-11-22, user_id ada, {homework}: "
        "calls is 3 and should be 2, cost_usd is NULL and should be 0.000570000002"
    )


async def test_sums_of_nothing_are_found(database: str) -> None:
    """A row that was removed from the ledger leaves its sums behind."""
    connection = await ledger_of_two_months(database)
    await connection.execute("DELETE FROM user_api_usage WHERE created_at >= '2026-10-02'")
    await connection.close()
    sentences = await found(database)
    assert any("the ledger has no rows for them" in sentence for sentence in sentences)
    assert any("more rows differ" in sentence for sentence in sentences)
    before = Period(past=date(2026, 10, 1))
    assert await found(database, before) == []


async def test_a_wrong_month_is_named_once(database: str) -> None:
    """Months of the sums begin elsewhere than those of the report time zone."""
    connection = await ledger_of_two_months(database)
    await connection.execute("UPDATE usage_by_month SET errors = 7")
    await connection.close()
    assert await found(database) == [
        "usage_by_month, month 2026-09-01: errors is 7 and should be 0",
        "usage_by_month, month 2026-10-01: errors is 7 and should be 0",
    ]


async def test_days_whose_rows_are_gone_are_left_out(database: str) -> None:
    """Where days begin elsewhere than months of rows do, a month is left with a part of them."""
    connection = await ledger_of_two_months(database)
    await connection.execute(
        "INSERT INTO retired_month (month, rows, counted_since, counted_past)"
        " VALUES ('2026-09-01', 38, '2026-09-01Z', '2026-10-01Z')"
    )
    await connection.execute("DELETE FROM user_api_usage WHERE created_at < '2026-10-01Z'")
    assert await found(database) == []
    await connection.execute("UPDATE usage_by_day SET calls = 77 WHERE day = '2026-10-01'")
    assert await found(database) == []
    await connection.execute("UPDATE usage_by_day SET calls = 77 WHERE day = '2026-10-02'")
    (finding,) = await found(database)
    assert finding.startswith("usage_by_day, day 2026-10-02")
    await connection.close()


async def test_sums_are_made_anew(database: str) -> None:
    """Of some days, or all; not where the rows are gone that they would be made of."""
    connection = await ledger_of_two_months(database)
    october = Period(first=date(2026, 10, 1), past=date(2026, 11, 1))
    await connection.execute("UPDATE usage_by_user_day SET calls = 77; DELETE FROM usage_by_day")
    await rebuild(database, october)
    assert await found(database, october) == []
    assert await found(database) != []
    await rebuild(database, Period())
    assert await found(database) == []
    await connection.execute("DELETE FROM user_api_usage")
    await connection.close()
    with pytest.raises(DatabaseError, match="reach back further than the ledger"):
        await rebuild(database, Period())


async def test_a_database_without_a_ledger_is_an_error(empty_database: str) -> None:
    """And not a ledger without faults."""
    with pytest.raises(DatabaseError, match="does not exist"):
        await found(empty_database)
