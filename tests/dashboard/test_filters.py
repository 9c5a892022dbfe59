from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dashboard.filters import Filter, midnight, written_pair
from dashboard.parsing import parse

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = {zone.key: zone for zone in (ZoneInfo("UTC"), BERLIN, ZoneInfo("Asia/Kathmandu"))}
NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)


def _parse(*pairs: tuple[str, str]) -> Filter:
    return parse(pairs, now=NOW, report_zone=BERLIN, zones=ZONES, columns=("calls", "cost_usd"))


@pytest.mark.parametrize(
    ("pairs", "start", "end"),
    [
        ([("range", "today")], "2026-11-21T23:00", "2026-11-22T23:00"),
        ([("range", "7d")], "2026-11-15T23:00", "2026-11-22T23:00"),
        ([("from", "2026-03-29"), ("to", "2026-03-29")], "2026-03-28T23:00", "2026-03-29T22:00"),
        ([("from", "2026-10-25"), ("to", "2026-10-25")], "2026-10-24T22:00", "2026-10-25T23:00"),
        ([("from", "2024-02-29"), ("to", "2024-02-29")], "2024-02-28T23:00", "2024-02-29T23:00"),
        ([("range", "today"), ("tz", "Asia/Kathmandu")], "2026-11-21T18:15", "2026-11-22T18:15"),
    ],
    ids=["today", "week", "short day", "long day", "leap day", "a zone of 45 minutes"],
)
def test_days_are_instants(pairs: list[tuple[str, str]], start: str, end: str) -> None:
    """Half-open, in UTC, with days of 23, 24 and 25 hours."""
    wanted = _parse(*pairs)
    assert wanted.start == datetime.fromisoformat(start + "+00:00")
    assert wanted.end == datetime.fromisoformat(end + "+00:00")


def test_a_query_comes_back_as_it_was() -> None:
    """What is the default is left out."""
    pairs = [
        ("range", "7d"),
        ("user", "a&b"),
        ("user", "ü"),
        ("metadata", "k=v=w"),
        ("size", "200"),
    ]
    assert _parse(*pairs).pairs() == pairs
    assert _parse(("range", "30d"), ("tz", "Europe/Berlin")).query() == ""


@given(st.text(), st.text())
@example("a=b", "c")
@example('{"a', 'b": "c"}')
@example("", "")
def test_metadata_of_any_name_can_be_asked_for(key: str, value: str) -> None:
    """As it is written, and taken away by its chip."""
    assume(not set(key + value) & {"\0"} and len(key + value) < 1000)
    wanted = _parse(("metadata", written_pair(key, value)))
    assert wanted.metadata == ((key, value),)
    assert wanted.without_value("metadata", wanted.chips()[0][1]).metadata == ()


def test_a_chip_takes_its_value_away() -> None:
    """And the page begins at its first row again."""
    wanted = _parse(("endpoint", "a"), ("endpoint", "b"), ("metadata", "k=v"), ("without", "user"))
    assert wanted.chips() == [
        ("endpoint", "a", "endpoint=b&without=user&metadata=k%3Dv"),
        ("endpoint", "b", "endpoint=a&without=user&metadata=k%3Dv"),
        ("without", "user", "endpoint=a&endpoint=b&metadata=k%3Dv"),
        ("metadata", "k=v", "endpoint=a&endpoint=b&without=user"),
    ]


@pytest.mark.parametrize(
    ("pairs", "first", "last", "until"),
    [
        ([("range", "today")], date(2026, 11, 21), date(2026, 11, 21), "2026-11-21T12:30"),
        ([("range", "this_month")], date(2026, 10, 1), date(2026, 10, 22), "2026-10-22T11:30"),
        ([("range", "last_month")], date(2026, 9, 1), date(2026, 9, 30), None),
        (
            [("from", "2026-11-01"), ("to", "2026-11-10"), ("compare", "year")],
            date(2025, 11, 2),
            date(2025, 11, 11),
            None,
        ),
    ],
    ids=["today", "this month", "last month", "last year, same weekdays"],
)
def test_a_period_is_compared_with_as_much_of_the_one_before(
    pairs: list[tuple[str, str]], first: date, last: date, until: str | None
) -> None:
    """The same time of day, which is another instant where clocks have changed."""
    compare = [] if any(name == "compare" for name, _ in pairs) else [("compare", "previous")]
    before = _parse(*pairs, *compare).previous(NOW)
    assert before is not None
    assert (before.first, before.last) == (first, last)
    assert before.until == (None if until is None else datetime.fromisoformat(until + "+00:00"))


def test_all_time_has_nothing_before_it() -> None:
    """Nor has what nobody wants to compare."""
    assert _parse(("range", "all"), ("compare", "previous")).previous(NOW) is None
    assert _parse(("range", "today")).previous(NOW) is None


@given(st.dates(date(1980, 1, 1), date(2037, 12, 31)), st.sampled_from(sorted(ZONES)))
def test_the_days_of_a_zone_leave_no_gap(day: date, zone: str) -> None:
    """Each instant belongs to one day."""
    begin = midnight(day, ZONES[zone])
    assert begin.astimezone(ZONES[zone]).date() == day


@pytest.mark.parametrize(
    ("zone", "report_zone", "days"),
    [
        ("UTC", "UTC", (date(2026, 11, 1), date(2026, 11, 3))),
        ("Asia/Kathmandu", "UTC", (date(2026, 11, 1), date(2026, 11, 2))),
        ("America/New_York", "UTC", (date(2026, 11, 2), date(2026, 11, 3))),
        ("UTC", "Pacific/Apia", (date(2026, 11, 2), date(2026, 11, 3))),
    ],
)
def test_days_of_the_report_lie_in_a_range_of_another_zone(
    zone: str, report_zone: str, days: tuple[date, date]
) -> None:
    """Those that begin and end in it; what is left over at both ends is read otherwise."""
    wanted = Filter(
        range="custom",
        first=date(2026, 11, 1),
        last=date(2026, 11, 3),
        zone=ZoneInfo(zone),
        report_zone=ZoneInfo(report_zone),
    )
    assert wanted.report_days == days
    assert wanted.whole_report_days is (zone == report_zone)
    from_the_beginning = wanted.with_(first=None, until=datetime(2026, 11, 1, 3, tzinfo=UTC))
    assert from_the_beginning.report_days == (date.min, date(2026, 10, 31))
    assert not from_the_beginning.whole_report_days
