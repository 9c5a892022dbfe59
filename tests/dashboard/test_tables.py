from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from dashboard import cells, tables
from dashboard.report import Column
from dashboard.tables import Sums, plain, share, summed

NONE = dict.fromkeys(cells.SUMS)
ADA = NONE | {"user_id": "ada", "calls": 3, "total_tokens": 10, "cost_usd": Decimal("0.75")}
BOB = NONE | {"user_id": "bob", "calls": 1, "total_tokens": None, "cost_usd": None}
TOTAL = NONE | {"calls": 4, "total_tokens": 10, "cost_usd": Decimal("3.00")}


def test_what_is_worked_out_stands_beside_the_sums() -> None:
    """Unknown stays unknown."""
    table = summed("users", "Users", ("user_id",), Sums(rows=[ADA, BOB], total=TOTAL))
    ada, bob = table.records()
    assert (ada["cost_per_call"], ada["cost_share"]) == (Decimal("0.25"), Decimal("0.25"))
    assert (bob["cost_per_call"], bob["cost_share"]) == (None, None)
    assert table.total()["user_id"] is None
    assert table.total()["calls"] == 4


def test_what_was_not_there_before_was_0() -> None:
    """And what was there without a known cost is unknown."""
    before = {("bob",): NONE | {"calls": 2}}
    sums = Sums(rows=[ADA, BOB], total=TOTAL, before=before, total_before=NONE | {"calls": 2})
    ada, bob = summed("users", "Users", ("user_id",), sums).records()
    assert (ada["previous_calls"], ada["previous_cost_usd"]) == (0, 0)
    assert (bob["previous_calls"], bob["previous_cost_usd"]) == (2, None)


def test_users_are_counted_where_they_are_asked_for() -> None:
    """Beside each row, and in all."""
    row = ADA | {"endpoint": "hint"}
    sums = Sums(rows=[row], total=TOTAL, users={("hint",): 7}, all_users=9)
    table = summed("endpoints", "Endpoints", ("endpoint",), sums)
    assert table.records()[0]["users"] == 7
    assert table.total()["users"] == 9


def test_ids_and_moments_are_shown_as_they_are() -> None:
    """An id as text."""
    columns = (
        Column(name="id", title="Id", kind="text"),
        Column(name="at", title="At", kind="time"),
    )
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    table = plain("t", "T", columns, [{"id": UUID(int=7), "at": moment}])
    assert table.rows == (("00000000-0000-0000-0000-000000000007", moment),)


@pytest.mark.parametrize(("part", "whole"), [(None, 1), (1, None), (1, 0)])
def test_a_share_of_the_unknown_is_unknown(part: int | None, whole: int | None) -> None:
    """Nor is there a share of nothing."""
    assert share(part, whole) is None


def test_whatever_is_summed_has_a_column() -> None:
    """And can be sorted by."""
    audio = {"audio_prompt_tokens", "audio_completion_tokens"}
    assert {column.name for column in tables.SUMS} == set(cells.SUMS) - audio


def test_a_small_share_is_not_nothing() -> None:
    """It is shown as less than a tenth of a per cent, and not as none."""
    assert share(Decimal("0.0000052"), 30) == Decimal("2E-7")
    assert share(1, 3) == Decimal("0.333333")
    assert share(0, 3) == 0
