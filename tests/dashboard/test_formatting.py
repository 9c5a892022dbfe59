from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import formatting

THIN = "\N{NARROW NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "shown", "exact"),
    [
        ("0", "$0.00", "$0"),
        ("0.000000000000", "$0.00", "$0"),
        ("1234.567", "$1,234.57", "$1,234.567"),
        ("0.12345", "$0.12", "$0.12345"),
        ("0.0140", "$0.0140", "$0.014"),
        ("0.001575", "$0.0016", "$0.001575"),
        ("0.00000954", "$0.0000095", "$0.00000954"),
        ("-0.5", "−$0.50", "−$0.5"),
    ],
)
def test_money_is_short_but_never_nothing(value: str, shown: str, exact: str) -> None:
    """What is exact has every digit."""
    assert formatting.money(Decimal(value)) == shown
    assert formatting.exact(Decimal(value)) == exact


@given(st.decimals(min_value="0.000000000001", max_value=10**9, places=12))
def test_no_cost_looks_like_none(value: Decimal) -> None:
    """Rounded, but never to zero."""
    assert set(formatting.money(value)) & set("123456789")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (999, "999"), (1500, "1.50k"), (12_345_678, "12.3M"), (2 * 10**9, "2.00B")],
)
def test_large_numbers_are_short_in_headlines(value: int, shown: str) -> None:
    """Three digits and a letter."""
    assert formatting.compact(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [("0", "0.0"), ("0.0004", f"<{THIN}0.1"), ("0.012", "1.2"), ("0.63", "63"), ("1", "100")],
)
def test_shares_are_in_per_cent(value: str, shown: str) -> None:
    """And what is not nothing does not look like it."""
    assert formatting.share(Decimal(value)) == f"{shown}{THIN}%"


@pytest.mark.parametrize(
    ("now", "before", "shown"),
    [
        (12, 10, f"+20{THIN}%"),
        (Decimal("9.5"), Decimal(10), f"−5.0{THIN}%"),
        (5, 5, f"±0.0{THIN}%"),
        (5, 0, "new"),
        (500, 2, "×250"),
        (0, 0, None),
        (None, 1, None),
        (1, None, None),
    ],
)
def test_changes_have_a_sign(
    now: Decimal | int | None, before: Decimal | int | None, shown: str | None
) -> None:
    """From nothing there is no percentage."""
    assert formatting.change(now, before) == shown


@pytest.mark.parametrize(
    ("value", "component", "shown"),
    [
        ("0.00000075", "input", "$0.75 / 1M"),
        ("0.000000075", "cached_input", "$0.075 / 1M"),
        ("0.0000025", "cache_write_12h", "$2.50 / 1M"),
        ("0.00001", "audio_output", "$10.00 / 1M"),
        ("0.01", "web_search", "$0.01"),
        ("0.08", "image/hd/1024x1024", "$0.08"),
    ],
)
def test_prices_of_tokens_are_by_the_million(value: str, component: str, shown: str) -> None:
    """As price lists have them; other units stand for themselves."""
    assert formatting.unit_price(Decimal(value), component) == shown


def test_times_and_sizes_have_units() -> None:
    """Seconds from a second on, kilobytes from a kilobyte on."""
    assert formatting.milliseconds(340) == f"340{THIN}ms"
    assert formatting.milliseconds(1234) == f"1.23{THIN}s"
    assert formatting.milliseconds(65_432) == f"65.4{THIN}s"
    assert formatting.size(72) == f"72{THIN}B"
    assert formatting.size(1500) == f"1.5{THIN}kB"
    assert formatting.size(2_500_000) == f"2.5{THIN}MB"
    assert formatting.size(3 * 10**9) == f"3.0{THIN}GB"


def test_moments_are_those_of_a_zone() -> None:
    """To the second."""
    moment = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)
    assert formatting.moment(moment, ZoneInfo("Europe/Berlin")) == "2026-11-23 00:30:00"


@pytest.mark.parametrize(
    ("first", "last", "shown"),
    [
        (None, date(2026, 11, 2), "everything up to Nov 2, 2026"),
        (date(2026, 11, 2), date(2026, 11, 2), "Mon Nov 2, 2026"),
        (date(2026, 10, 24), date(2026, 11, 22), "Oct 24 – Nov 22, 2026"),
        (date(2025, 12, 24), date(2026, 1, 6), "Dec 24, 2025 – Jan 6, 2026"),
    ],
)
def test_ranges_are_words(first: date | None, last: date, shown: str) -> None:
    """With the year where it is needed."""
    assert formatting.span(first, last) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\nb\tc\0", "a␊b␉c␀"),
        ("\x7f\x85", "␡\N{REPLACEMENT CHARACTER}"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}txt", "\N{REPLACEMENT CHARACTER}txt"),
        ("\N{LINE SEPARATOR}", "\N{REPLACEMENT CHARACTER}"),
        ("👩\N{ZERO WIDTH JOINER}🏫 שלום", "👩\N{ZERO WIDTH JOINER}🏫 שלום"),
        ("<b>=cmd()</b>", "<b>=cmd()</b>"),
        ("x" * 10_000, "x" * 96 + "…"),
    ],
    ids=["controls", "del", "override", "separator", "emoji", "markup", "long"],
)
def test_names_are_one_line_of_visible_text(value: str, shown: str) -> None:
    """Nothing breaks the line, hides, or turns the reading around."""
    assert formatting.text(value) == shown


def test_a_hint_has_more_of_a_name_but_not_all_of_any() -> None:
    """Ten kilobytes fit nowhere."""
    assert len(formatting.hint("x" * 10_000)) == formatting.LONGEST_HINT + 1


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((1.4, 1.2, 1.0, 0.0), ["$1.40", "$1.20", "$1.00", "$0.00"]),
        ((3000.0, 1500.0, 0.0), ["$3,000", "$1,500", "$0"]),
        ((0.002, 0.001, 0.0), ["$0.002", "$0.001", "$0.000"]),
        ((), []),
    ],
    ids=["cents", "whole", "mills", "none"],
)
def test_an_axis_has_as_many_places_everywhere(values: tuple[float, ...], shown: list[str]) -> None:
    """So that its numbers stand below each other."""
    assert formatting.ticks(values) == shown
