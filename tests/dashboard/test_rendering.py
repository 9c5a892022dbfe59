import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from dashboard import rendering
from dashboard.filters import Filter
from dashboard.report import Column, Freshness, Health, Period, Report, Stats, Table
from dashboard.roles import Viewer

MOMENT = datetime(2026, 8, 28, 12, 0, tzinfo=UTC)
PERIOD = Period(
    name="month",
    since=date(2026, 8, 1),
    calls=1234,
    errors=1,
    active_users=2,
    unpriced_calls=0,
    estimated_calls=617,
    unavailable_calls=0,
    prompt_tokens=1_000_000,
    completion_tokens=None,
    cached_tokens=0,
    total_tokens=1_000_000,
    cost_usd=Decimal("0.000000150000"),
)
ASKED = Filter(
    range="today",
    first=date(2026, 8, 28),
    last=date(2026, 8, 28),
    zone=ZoneInfo("UTC"),
    report_zone=ZoneInfo("UTC"),
)
TABLE = Table(
    name="users",
    title="Users",
    columns=(
        Column(name="user_id", title="User", kind="text"),
        Column(name="cost_usd", title="Cost", kind="money", unit="USD"),
        Column(name="calls", title="Calls", kind="count"),
    ),
    rows=(("=cmd()", Decimal("0.000000150000"), None),),
    next_after=("0", "0a"),
)
REPORT = Report(
    name="users",
    title="Users",
    filter=ASKED,
    freshness=Freshness(as_of=MOMENT, newest_call=None, report_timezone="UTC"),
    tables=(TABLE, replace(TABLE, name="days", rows=())),
)
ADA = Viewer(name="ada", role="admin", via="session", csrf="x")
STATS = Stats(as_of=MOMENT, newest_call=None, report_timezone="Europe/Berlin", periods=(PERIOD,))


def test_json_keeps_every_digit_and_says_what_is_unknown() -> None:
    """Money is text without an exponent, unknown is null."""
    month = json.loads(rendering.stats_json(STATS))["month"]
    assert month["cost_usd"] == "0.000000150000"
    assert month["completion_tokens"] is None
    assert month["since"] == "2026-08-01"
    assert month["estimated_share"] == 0.5


def test_json_has_the_first_table_at_the_top_and_the_others_by_name() -> None:
    """Rows by the names of their columns."""
    document = json.loads(rendering.to_json(REPORT))
    assert document["rows"] == [{"user_id": "=cmd()", "cost_usd": "0.000000150000", "calls": None}]
    assert document["next"] == "range=today&after=WyIwIiwgIjBhIl0"
    assert document["range"]["end"] == "2026-08-29T00:00:00+00:00"
    assert document["tables"]["days"]["rows"] == []


def test_csv_is_text_in_a_spreadsheet() -> None:
    """With a byte order mark, CRLF, and an apostrophe before what would be a formula."""
    text = rendering.to_csv(TABLE)
    assert text == "\ufeffuser_id,cost_usd,calls\r\n'=cmd(),0.000000150000,\r\n"


def test_raw_csv_is_for_machines() -> None:
    """Not a character more than there is."""
    text = rendering.to_csv(TABLE, raw=True)
    assert text == "user_id,cost_usd,calls\r\n=cmd(),0.000000150000,\r\n"


@pytest.mark.parametrize("first", [*"=+-@\t\r\n\uff1d\uff0b\uff0d\uff20", " =", "\u3000 +"])
def test_whatever_begins_a_formula_is_defused(first: str) -> None:
    """Line breaks and other controls become spaces."""
    shown = rendering.defused(f"{first}1\n2")
    assert shown.startswith("'")
    assert "\n" not in shown


def test_what_is_shown_cannot_become_markup() -> None:
    """Text is text."""
    table = replace(TABLE, rows=(("<script>", None, 1),), title="<script>")
    page = rendering.to_html(replace(REPORT, title="<script>", tables=(table,)), ADA, {})
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in rendering.message_page("<script>")


def test_the_policy_allows_what_is_served_here_and_nothing_else() -> None:
    """No script or style in a page, nothing from elsewhere, no frame around it."""
    policy = rendering.SECURITY_HEADERS["Content-Security-Policy"]
    assert policy == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def test_health_and_errors_are_json() -> None:
    """For machines."""
    assert json.loads(rendering.health_json(Health(newest_call=MOMENT))) == {
        "status": "ok",
        "database": "reachable",
        "newest_call": "2026-08-28T12:00:00+00:00",
    }
    error = json.loads(rendering.error_json("send it", error_type="unauthorized"))
    assert error == {"error": {"message": "send it", "type": "unauthorized"}}


def test_a_type_that_has_no_place_in_a_report_is_refused() -> None:
    """It would be guessed otherwise."""
    with pytest.raises(TypeError, match="object has no place"):
        rendering._plain(object())  # noqa: SLF001 - no report can hold one
