from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dashboard.asking import (
    added,
    in_sets,
    is_narrow,
    knows_users,
    merged,
    on_days,
    places,
    source_of,
    sums_key,
    to_quarter,
)
from dashboard.cells import PLACES, SUMS, Key, Source
from dashboard.errors import ParameterError
from dashboard.filters import Filter

THEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
MONTH = Filter(
    range="custom",
    first=date(2026, 10, 1),
    last=date(2026, 10, 31),
    zone=ZoneInfo("UTC"),
    report_zone=ZoneInfo("UTC"),
)
ELSEWHERE = {"zone": ZoneInfo("Asia/Kolkata")}


@pytest.mark.parametrize(
    ("changes", "keys", "source"),
    [
        ({}, ("endpoint",), "days"),
        (ELSEWHERE, ("endpoint",), "day_pieces"),
        (ELSEWHERE, ("day",), "hours"),
        ({}, ("user_id",), "spans"),
        (ELSEWHERE, ("user_id",), "pieces"),
        ({"endpoints": ("hint",)}, ("user_id",), "features"),
        (ELSEWHERE | {"endpoints": ("hint",)}, ("user_id",), "feature_pieces"),
        ({"endpoints": ("hint",), "first": date(2026, 10, 30)}, ("user_id",), "users"),
        ({"users": ("ada",)}, ("day",), "users"),
        ({"users": ("ada",)}, ("endpoint",), "users"),
        ({"users": ("ada",)}, ("user_id",), "spans"),
        (ELSEWHERE | {"users": ("ada",)}, ("user_id",), "pieces"),
        ({"users": ("ada",), "endpoints": ("hint",)}, ("user_id",), "users"),
        ({"users": (*"abcd",), "endpoints": ("hint",)}, ("user_id",), "features"),
        (ELSEWHERE | {"users": ("ada",)}, ("endpoint",), "user_pieces"),
        (ELSEWHERE | {"users": ("ada",)}, ("day",), "calls"),
        ({"users": ("ada",), "tiers": ("flex",)}, ("day",), "calls"),
        ({"outcomes": ("ok",)}, ("endpoint",), "calls"),
    ],
)
def test_the_coarsest_rows_that_can_answer_are_read(
    changes: dict[str, Any], keys: tuple[Key, ...], source: Source
) -> None:
    """Coarser ones would not know what is asked, finer ones are more."""
    assert source_of(MONTH.with_(**changes), keys, "") == source


@pytest.mark.parametrize(
    ("changes", "keys", "known"),
    [
        ({}, (), True),
        (ELSEWHERE, ("endpoint",), True),
        ({}, ("day",), True),
        ({}, ("model",), False),
        ({"models": ("gpt-a",)}, (), False),
        ({"without": ("user",)}, (), False),
        ({"search": "x"}, (), False),
    ],
)
def test_sets_know_endpoints_and_days(
    changes: dict[str, Any],
    keys: tuple[Key, ...],
    known: bool,  # noqa: FBT001 - of a table
) -> None:
    """And nothing else of who was there."""
    assert in_sets(MONTH.with_(**changes), keys, "") is known


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"first": None}, True),
        (ELSEWHERE, True),
        (ELSEWHERE | {"first": None}, False),
        (ELSEWHERE | {"first": date(2026, 8, 1)}, True),
        (ELSEWHERE | {"first": date(2026, 7, 31)}, False),
        (ELSEWHERE | {"first": date(2026, 8, 1), "endpoints": ("hint",)}, False),
        (ELSEWHERE | {"first": date(2026, 8, 1), "models": ("gpt-a",)}, False),
        ({"first": date(2026, 10, 1), "last": date(2026, 10, 31), "tiers": ("flex",)}, True),
        ({"first": date(2026, 10, 1), "last": date(2026, 11, 1), "tiers": ("flex",)}, False),
        ({"first": None, "tiers": ("flex",)}, False),
        ({"first": None, "tiers": ("flex",), "users": ("ada",)}, True),
    ],
)
def test_users_of_single_days_are_counted_where_that_is_quick(
    changes: dict[str, Any],
    known: bool,  # noqa: FBT001 - of a table
) -> None:
    """Elsewhere they are unknown, and the page says so."""
    assert knows_users(MONTH.with_(**changes), ("day",)) is known


def test_a_filter_has_a_value_for_every_place() -> None:
    """In their order; what is not asked for is NULL."""
    values = dict(zip(PLACES, places(MONTH, "user"), strict=True))
    assert values["zone"] == "UTC"
    assert (values["first"], values["last"]) == (date(2026, 10, 1), date(2026, 10, 31))
    assert values["start"] == datetime(2026, 10, 1, tzinfo=UTC)
    assert values["users"] is values["metadata_keys"] is values["search"] is None
    assert values["without"] == []
    assert values["search_in"] == "user"


def test_rows_are_added_as_the_database_adds_them() -> None:
    """Of no rows a sum is 0; of rows none of which knows it, None."""
    unknown = dict.fromkeys(SUMS) | {"calls": 1}
    known = unknown | {"calls": 2, "cost_usd": Decimal("0.5"), "last_call": THEN}
    assert added([]) == dict.fromkeys(SUMS, 0) | {"first_call": None, "last_call": None}
    assert isinstance(added([])["cost_usd"], Decimal)  # which JSON has as a text, of any amount
    assert added([unknown]) == unknown
    assert added([known, unknown]) == known | {"calls": 3}


@pytest.mark.parametrize(("minute", "then"), [(0, 0), (1, 15), (15, 15), (44, 45)])
def test_a_day_that_ends_early_ends_with_a_quarter_of_an_hour(minute: int, then: int) -> None:
    """As its sums do."""
    until = to_quarter(MONTH.with_(until=THEN.replace(minute=minute))).until
    assert until == THEN.replace(minute=then)
    assert to_quarter(MONTH) == MONTH


def test_ranks_of_groups_become_one_page() -> None:
    """In the order of the database: smallest place first, unknown last, names among equals."""
    one = [_rank("b", "-3"), _rank("a", "Infinity")]
    other = [_rank("c", "-3"), _rank("d", "-1")]
    page = merged(MONTH, [*one, *other], limit=3)
    assert [row["after_name"] for row in page] == ["b", "c", "d"]
    second = merged(MONTH.with_(sort="-name", after=("+", "1")), [*one, *other], limit=2)
    assert [row["after_name"] for row in second] == ["c", "b"]


def _rank(name: str, place: str) -> dict[str, str]:
    return {"after_place": place, "after_name": name}


@pytest.mark.parametrize("place", ["0E-50000000", "9E+99", "1" * 61, "NaN", "²"])
def test_a_place_that_no_page_has_is_refused(place: str) -> None:
    """Written out again it could fill the memory."""
    with pytest.raises(ParameterError):
        sums_key(MONTH.with_(after=(place, "0ada")))


@pytest.mark.parametrize(("rows", "passed"), [("7", 7), ("²", 0), ("", 0), ("9" * 99, 10**15)])
def test_rows_to_pass_over_are_a_number(rows: str, passed: int) -> None:
    """Whatever somebody has written there, and one that Postgres can take."""
    assert MONTH.with_(after=("+", rows)).offset == passed


def test_days_know_what_may_be_rare() -> None:
    """An outcome is known by calls alone; a user has an index."""
    assert is_narrow(MONTH.with_(tiers=("flex",)))
    assert not is_narrow(MONTH.with_(outcomes=("ok",)))
    assert not is_narrow(MONTH.with_(models=("gpt-a",), users=("ada",)))
    asked = on_days(MONTH.with_(**ELSEWHERE, models=("gpt-a",), outcomes=("ok",), search="x"))
    assert (asked.models, asked.outcomes, asked.search) == (("gpt-a",), (), None)
    assert (asked.first, asked.last) == (date(2026, 9, 29), date(2026, 11, 2))
    assert asked.whole_report_days
