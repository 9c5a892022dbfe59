from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from dashboard.filters import Filter
from dashboard.projecting import days_before, month_end

NOW = datetime(2026, 11, 21, 0, 0, tzinfo=UTC)
ASKED = Filter(
    range="30d",
    first=date(2026, 10, 24),
    last=date(2026, 11, 22),
    zone=ZoneInfo("UTC"),
    report_zone=ZoneInfo("UTC"),
)


def _days(count: int, cost: str) -> list[dict[str, object]]:
    today = NOW.date()
    return [
        {"day": today - timedelta(days=distance), "cost_usd": Decimal(cost)}
        for distance in range(1, count + 1)
    ]


def test_days_that_are_alike_leave_no_doubt() -> None:
    """Twenty days at 3 USD, and ten more of the same."""
    row = month_end(_days(28, "3"), days_before(ASKED, NOW), NOW)
    assert row["cost_usd"] == Decimal(60)
    assert row["low_cost_usd"] == row["expected_cost_usd"] == row["high_cost_usd"] == Decimal(90)


def test_days_that_differ_make_a_range() -> None:
    """The expectation is in the middle."""
    rows = _days(28, "3")
    rows[0]["cost_usd"] = Decimal(31)
    row = month_end(rows, days_before(ASKED, NOW), NOW)
    assert row["low_cost_usd"] < row["expected_cost_usd"] < row["high_cost_usd"]
    assert row["expected_cost_usd"] == Decimal(88) + Decimal(40)


def test_a_few_days_tell_nothing() -> None:
    """Unknown is None."""
    row = month_end(_days(6, "3"), days_before(ASKED, NOW), NOW)
    assert row["cost_usd"] == Decimal(18)
    assert row["expected_cost_usd"] is None
    assert month_end([], days_before(ASKED, NOW), NOW)["expected_cost_usd"] is None


def test_money_stays_decimal() -> None:
    """No float is in between: digits that it does not have are kept."""
    row = month_end(_days(28, "300000000000000.01"), days_before(ASKED, NOW), NOW)
    assert row["expected_cost_usd"] == Decimal("9000000000000000.30")
