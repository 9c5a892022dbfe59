from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dashboard import compact
from dashboard.cells import SUMS
from dashboard.compact import CellKey, Cells
from dashboard.filters import Filter

FIRST, LAST = datetime(2026, 11, 2, 8, tzinfo=UTC), datetime(2026, 11, 2, 9, 0, 0, 5, tzinfo=UTC)
HINT: CellKey = ("hint", "gpt-a", None)
CHAT: CellKey = (None, "gpt-b", "default")
ALL = Filter(
    range="all",
    first=None,
    last=date(2026, 11, 30),
    zone=ZoneInfo("UTC"),
    report_zone=ZoneInfo("UTC"),
)


def _row(**changes: Any) -> dict[str, Any]:
    plain = dict.fromkeys(SUMS, 1) | {"cost_usd": Decimal("0.100000000001"), "tool_cost_usd": None}
    return plain | {"first_call": FIRST, "last_call": LAST} | changes


def _cells(*rows: tuple[CellKey, dict[str, Any]]) -> Cells:
    data = b"".join(compact.packed(row) for _, row in rows)
    return Cells(tuple(key for key, _ in rows), data)


def test_what_is_packed_comes_out_again() -> None:
    """To the last digit and the microsecond; unknown stays unknown."""
    row = _row(audio_prompt_tokens=None, total_tokens=2**62)
    (found,) = compact.by_keys(("endpoint",), [(None, _cells((HINT, row)).items())])
    assert found == {"endpoint": "hint"} | row
    assert str(found["cost_usd"]) == "0.100000000001"


def test_what_is_known_of_any_is_known_of_all() -> None:
    """Sums are over what is known; the first call is the earliest, the last the latest."""
    items = [
        *_cells((HINT, _row(cost_usd=None, first_call=LAST))).items(),
        *_cells((HINT, _row(cost_usd=Decimal("-2.5")))).items(),
    ]
    found = compact.total(items)
    assert (found["calls"], found["cost_usd"], found["tool_cost_usd"]) == (2, Decimal("-2.5"), None)
    assert (found["first_call"], found["last_call"]) == (FIRST, LAST)
    ((key, _),) = compact.by_cell(items)
    assert key == HINT


def test_without_calls_sums_are_0_and_nobody_came() -> None:
    """As SQL says it."""
    nothing = compact.total([])
    assert (nothing["calls"], nothing["cost_usd"], nothing["first_call"]) == (0, 0, None)
    assert set(nothing) == set(SUMS)


def test_days_come_first_in_groups() -> None:
    """Each with its own cells."""
    days = [(date(2026, 11, 1), _cells((HINT, _row()), (CHAT, _row())).items())]
    found = compact.by_keys(("day", "endpoint"), days)
    assert [(row["day"], row["endpoint"]) for row in found] == [
        (date(2026, 11, 1), "hint"),
        (date(2026, 11, 1), None),
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [HINT, CHAT]),
        ({"endpoints": ("hint",)}, [HINT]),
        ({"models": ("gpt-b",)}, [CHAT]),
        ({"tiers": ("default",)}, [CHAT]),
        ({"without": ("endpoint",)}, [CHAT]),
        ({"without": ("model",)}, []),
    ],
    ids=["all", "endpoint", "model", "tier", "without-endpoint", "without-model"],
)
def test_a_filter_chooses_cells(changes: dict[str, Any], expected: list[CellKey]) -> None:
    """Who names none is in no list of names."""
    items = _cells((HINT, _row()), (CHAT, _row())).items()
    assert [key for key, _ in compact.chosen(ALL.with_(**changes), items)] == expected


@pytest.mark.parametrize("cost", [Decimal("9300000.5"), Decimal("0.0000000000001")])
def test_what_does_not_fit_is_refused(cost: Decimal) -> None:
    """It is never rounded."""
    with pytest.raises(OverflowError):
        compact.packed(_row(cost_usd=cost))
