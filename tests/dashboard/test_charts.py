from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dashboard.charts import HEIGHT, MOST_SERIES, OTHER, Chart, chart

FIRST, LAST = date(2026, 11, 1), date(2026, 11, 3)


def _row(day: int, endpoint: str | None, cost: str | None) -> Mapping[str, Any]:
    money = None if cost is None else Decimal(cost)
    return {"day": FIRST + timedelta(days=day), "endpoint": endpoint, "cost_usd": money}


def _chart(*rows: Mapping[str, Any]) -> Chart:
    found = chart(rows, first=FIRST, last=LAST, by="endpoint")
    assert found is not None
    return found


def test_days_without_calls_are_there_and_empty() -> None:
    """A gap is a fact."""
    found = _chart(_row(0, "a", "1"), _row(2, "a", "2"))
    assert found.starts == (FIRST, FIRST + timedelta(days=1), LAST)
    assert found.series[0].exact == ("1", "0", "2")


def test_the_largest_is_at_the_bottom_and_the_rest_is_one() -> None:
    """Six colours can be told apart, twenty cannot."""
    found = _chart(*(_row(0, f"e{n}", str(n + 1)) for n in range(9)))
    assert [series.name for series in found.series] == ["e8", "e7", "e6", "e5", "e4", "e3", OTHER]
    assert found.series[-1].total == 1 + 2 + 3
    assert len(found.series) == MOST_SERIES + 1


def test_bars_stand_on_each_other_within_the_scale() -> None:
    """From the floor up, and none beyond the top."""
    found = _chart(_row(0, "a", "3"), _row(0, "b", "1"))
    assert found.lines == (4.0, 3.0, 2.0, 1.0, 0.0)
    low, high = found.bars
    assert (low.y, low.height) == (f"{HEIGHT * 0.25:.2f}", f"{HEIGHT * 0.75:.2f}")
    assert (high.y, high.height) == ("0.00", f"{HEIGHT * 0.25:.2f}")


def test_what_is_unknown_is_not_drawn() -> None:
    """Nor is there a chart of nothing."""
    assert chart([_row(0, "a", None)], first=FIRST, last=LAST, by="endpoint") is None
    assert chart([], first=None, last=LAST, by=None) is None


def test_many_days_become_months() -> None:
    """A year has twelve bars."""
    rows = [_row(0, None, "1"), _row(1, None, "1"), _row(300, None, "5")]
    found = chart(rows, first=None, last=LAST, by=None)
    assert found is not None
    assert found.monthly
    assert found.starts[0] == FIRST
    assert len(found.starts) == 10
    assert found.series[0].exact[0] == "2"
    assert found.data["days"][0] == "2026-11-01"


def test_few_days_are_all_named_and_many_evenly() -> None:
    """Six names fit a phone."""
    assert len(_chart(_row(0, "a", "1")).labels) == 3
    long = chart([_row(0, "a", "1")], first=FIRST, last=FIRST + timedelta(days=29), by="endpoint")
    assert long is not None
    assert len(long.labels) == 6
    assert (long.labels[0], long.labels[-1]) == (long.starts[0], long.starts[-1])


@given(st.lists(st.decimals(min_value=0, max_value=10**7, places=6), min_size=1, max_size=20))
def test_a_chart_keeps_the_sum(costs: list[Decimal]) -> None:
    """Whatever becomes of the rest, and however small it is."""
    rows = [_row(n % 3, f"e{n}", str(cost)) for n, cost in enumerate(costs)]
    found = chart(rows, first=FIRST, last=LAST, by="endpoint")
    if found is None:
        assert not any(costs)
        return
    assert sum(series.total for series in found.series) == sum(costs)
    assert found.top >= max(map(sum, zip(*(s.values for s in found.series), strict=True))) * 0.999
