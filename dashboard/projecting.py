"""What this month will have cost at its end, as a range. Pure.

The days that are over tell what a day costs and how much days differ; what is left of the month is
so many days more. The range holds four times out of five if days go on as they did and are
independent of each other, which they are not quite: it is a help for the eye and not a forecast.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from statistics import mean, stdev
from typing import Any

from dashboard.filters import Filter
from dashboard.report import Column

DAYS = 28
FEWEST_DAYS = 7
CENT = Decimal("0.01")
FOUR_OF_FIVE = Decimal("1.2816")  # standard deviations on either side

COLUMNS = (
    Column(name="month", title="Month", kind="day"),
    Column(name="cost_usd", title="So far", kind="money", unit="USD"),
    Column(name="low_cost_usd", title="At least", kind="money", unit="USD"),
    Column(name="expected_cost_usd", title="Expected", kind="money", unit="USD"),
    Column(name="high_cost_usd", title="At most", kind="money", unit="USD"),
)


def days_before(wanted: Filter, now: datetime) -> Filter:
    """Return the days that tell: this month's, and enough before them."""
    today = now.astimezone(wanted.zone).date()
    first = min(today.replace(day=1), today - timedelta(days=DAYS))
    return wanted.with_(range="custom", first=first, last=today, sort="name", compare="none")


def month_end(rows: Sequence[Mapping[str, Any]], days: Filter, now: datetime) -> dict[str, Any]:
    """Return the cost so far and the range at the month's end; None: too few days are over."""
    local = now.astimezone(days.zone)
    today = local.date()
    month = today.replace(day=1)
    costs = {row["day"]: row["cost_usd"] or Decimal(0) for row in rows}
    so_far = sum((cost for day, cost in costs.items() if day >= month), Decimal(0))
    over = [today - timedelta(days=distance) for distance in range(1, DAYS + 1)]
    begun = min(costs, default=today)  # days before the first call tell nothing
    known = [costs.get(day, Decimal(0)) for day in over if day >= begun]
    row = dict.fromkeys(column.name for column in COLUMNS) | {"month": month, "cost_usd": so_far}
    if len(known) < FEWEST_DAYS:
        return row
    next_month = (month + timedelta(days=31)).replace(day=1)
    left = (next_month - today).days - Decimal(local.hour * 60 + local.minute) / 1440
    more, spread = mean(known) * left, FOUR_OF_FIVE * stdev(known) * left.sqrt()
    return row | {
        "low_cost_usd": so_far + _cents(max(Decimal(0), more - spread)),
        "expected_cost_usd": so_far + _cents(more),
        "high_cost_usd": so_far + _cents(more + spread),
    }


def _cents(value: Decimal) -> Decimal:
    return value.quantize(CENT)
