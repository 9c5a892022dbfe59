from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from dashboard.filters import Filter
from dashboard.stretches import Stretch, is_torn, stretches_of

FIRST, SECOND = date(2026, 11, 1), date(2026, 11, 2)
FOLDED = datetime(2026, 11, 4, tzinfo=UTC)
DAYS = Filter(
    range="custom",
    first=FIRST,
    last=SECOND,
    zone=ZoneInfo("UTC"),
    report_zone=ZoneInfo("UTC"),
)


def _at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


def test_days_of_the_report_zone_are_days() -> None:
    """Those that have calls."""
    assert stretches_of(DAYS, {SECOND: None}) == [
        (SECOND, Stretch(_at(2, 0), _at(3, 0), (SECOND,), is_report_day=True))
    ]


def test_a_day_that_ends_early_ends_with_a_quarter_of_an_hour() -> None:
    """Which counts where it begins."""
    early = DAYS.with_(first=SECOND, until=_at(2, 9, 20))
    assert stretches_of(early, {SECOND: FOLDED}) == [
        (SECOND, Stretch(_at(2, 0), _at(2, 9, 30), (SECOND,)))
    ]


def test_a_day_of_another_zone_lies_in_two_of_the_ledger() -> None:
    """Also where only one of them has calls."""
    kolkata = DAYS.with_(first=SECOND, zone=ZoneInfo("Asia/Kolkata"))
    stretch = Stretch(_at(1, 18, 30), _at(2, 18, 30), (FIRST, SECOND))
    assert stretches_of(kolkata, {SECOND: FOLDED}) == [(SECOND, stretch)]


def test_a_stretch_is_over_when_all_its_days_are_folded() -> None:
    """A day without calls is no day that is open; should one come late, it is another version."""
    stretch = Stretch(_at(1, 18, 30), _at(2, 18, 30), (FIRST, SECOND))
    assert stretch.version({FIRST: FOLDED, SECOND: FOLDED}) == (FOLDED, FOLDED)
    assert stretch.version({SECOND: FOLDED}) == (None, FOLDED)
    assert stretch.version({FIRST: FOLDED, SECOND: None}) is None


@pytest.mark.parametrize(
    ("zone", "day", "torn"),
    [
        ("America/St_Johns", date(2010, 11, 7), True),  # 00:01 → 23:01
        ("America/Havana", date(2026, 11, 1), False),  # 01:00 → 00:00
        ("Asia/Beirut", date(2026, 3, 29), False),  # 00:00 → 01:00
        ("Europe/Berlin", date(2026, 10, 25), False),
    ],
)
def test_a_day_is_torn_where_it_begins_twice(zone: str, day: date, *, torn: bool) -> None:
    """Midnight may come twice, or never, and the day is one stretch of time all the same."""
    assert is_torn(day, ZoneInfo(zone)) is torn


def test_nothing_is_said_of_days_that_are_torn() -> None:
    """The sums of hours have to tell."""
    torn = DAYS.with_(
        first=date(2010, 11, 7), last=date(2010, 11, 7), zone=ZoneInfo("America/St_Johns")
    )
    assert stretches_of(torn, {date(2010, 11, 7): FOLDED}) is None
