from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.errors import ParameterError
from dashboard.filters import Filter, written_key
from dashboard.parsing import PARAMETERS, parse

NOW = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)
ZONES = {name: ZoneInfo(name) for name in ("UTC", "Europe/Berlin")}


def _parse(*pairs: tuple[str, str]) -> Filter:
    return parse(
        pairs,
        now=NOW,
        report_zone=ZONES["UTC"],
        zones=ZONES,
        columns=("calls",),
        refused={"tier": "not here"},
    )


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("today", date(2026, 11, 22), date(2026, 11, 22)),
        ("yesterday", date(2026, 11, 21), date(2026, 11, 21)),
        ("7d", date(2026, 11, 16), date(2026, 11, 22)),
        ("this_month", date(2026, 11, 1), date(2026, 11, 30)),
        ("last_month", date(2026, 10, 1), date(2026, 10, 31)),
        ("this_year", date(2026, 1, 1), date(2026, 12, 31)),
        ("all", None, date(2026, 11, 22)),
    ],
)
def test_ranges_have_names(name: str, first: date | None, last: date) -> None:
    """Of days in the zone, both included."""
    wanted = _parse(("range", name))
    assert (wanted.range, wanted.first, wanted.last) == (name, first, last)


def test_today_is_another_day_elsewhere() -> None:
    """At half past eleven in London it is tomorrow in Berlin."""
    assert _parse(("range", "today"), ("tz", "Europe/Berlin")).first == date(2026, 11, 23)


def test_what_forms_send_empty_was_not_given() -> None:
    """A plain form sends all of its fields."""
    assert _parse(("user", ""), ("from", ""), ("sort", "")) == _parse()


@pytest.mark.parametrize(
    "pairs",
    [
        [("colour", "red")],
        [("range", "fortnight")],
        [("range", "today"), ("range", "7d")],
        [("range", "7d"), ("from", "2026-01-01")],
        [("range", "custom")],
        [("from", "1.1.2026")],
        [("from", "2026-02-30")],
        [("from", "2026-11-23"), ("to", "2026-11-22")],
        [("to", "0001-01-01")],
        [("tz", "../../etc/passwd")],
        [("user", "x" * 1025)],
        [("user", "nul\0")],
        [("user", "\ud800")],
        [("user", str(number)) for number in range(51)],
        [("outcome", "fine")],
        [("without", "hope")],
        [("metadata", "key")],
        [("metadata", "=value")],
        [("metadata", '{"key": 1}')],
        [("metadata", '{"key": "nul\\u0000"}')],
        [("metadata", '{"key": "\\ud800"}')],
        [("metadata", '{"a":' * 1500)],
        [("metadata", "key=" + "x" * 8189)],
        [("sort", "cost_usd; DROP TABLE calls")],
        [("size", "51")],
        [("after", "%%%")],
        [("after", "eyJhIjoxfQ")],
        [("after", written_key(("0", "0\0")))],
        [("after", written_key(("\ud800", "0")))],
        [("compare", "apples")],
        [("tier", "flex")],
    ],
)
def test_what_is_wrong_is_named(pairs: list[tuple[str, str]]) -> None:
    """By the name of the parameter, and with what was expected."""
    with pytest.raises(ParameterError) as caught:
        _parse(*pairs)
    assert caught.value.parameter in {name for name, _ in pairs}


@given(st.lists(st.tuples(st.sampled_from(PARAMETERS), st.text(max_size=30)), max_size=8))
def test_any_query_is_a_filter_or_names_what_is_wrong(pairs: list[tuple[str, str]]) -> None:
    """What is accepted comes back as the same filter."""
    try:
        wanted = _parse(*pairs)
    except ParameterError:
        return
    assert _parse(*wanted.pairs()) == wanted
