from dataclasses import replace
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from dashboard.errors import ParameterError
from dashboard.filters import OFFSET, Filter
from dashboard.hiding import demand_blind, hidden
from dashboard.report import Column, Freshness, Report, Table

ASKED = Filter(
    range="today",
    first=date(2026, 8, 28),
    last=date(2026, 8, 28),
    zone=ZoneInfo("UTC"),
    report_zone=ZoneInfo("UTC"),
)
USERS = Table(
    name="users",
    title="Users",
    columns=tuple(
        Column(name=name, title=name, kind="text") for name in ("user_id", "model", "metadata")
    ),
    rows=(("ada", "m", '{"name": "Ada"}'), (None, "m", None)),
    next_after=("-1", "0ada"),
)
REPORT = Report(
    name="users",
    title="Users",
    filter=ASKED,
    freshness=Freshness(
        as_of=datetime(2026, 8, 28, tzinfo=UTC), newest_call=None, report_timezone="UTC"
    ),
    tables=(USERS, replace(USERS, name="other", columns=USERS.columns[1:2], rows=(("m",),))),
)


def test_users_have_pseudonyms_and_nothing_else_names_them() -> None:
    """Neither metadata nor the key of the next page; a call without a user stays one."""
    report = hidden(REPORT, lambda user: user.upper())
    users, other = report.tables
    assert users.rows == (("ADA", "m", None), (None, "m", None))
    assert users.next_after == (OFFSET, "2")
    assert other == REPORT.tables[1]


def test_pages_go_on_by_number() -> None:
    """From where this one began."""
    asked = replace(REPORT, filter=ASKED.with_(after=(OFFSET, "50")))
    assert hidden(asked, str.upper).tables[0].next_after == (OFFSET, "52")


@pytest.mark.parametrize(
    "changes",
    [
        {"users": ("ada",)},
        {"metadata": (("user", "ada"),)},
        {"search": "ada"},
        {"sort": "-name"},
        {"after": ("-1", "0ada")},
    ],
    ids=["user", "metadata", "search", "order", "page"],
)
def test_nothing_can_be_asked_that_tells_who_somebody_is(changes: dict[str, object]) -> None:
    """By asking often enough a name could be found out."""
    with pytest.raises(ParameterError, match="pseudonyms"):
        demand_blind(ASKED.with_(**changes))
    demand_blind(ASKED.with_(after=(OFFSET, "50")))
