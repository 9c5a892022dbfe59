import base64
import hashlib
import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from dashboard import rendering
from dashboard.report import Health, Period, Stats

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
STATS = Stats(as_of=MOMENT, newest_call=None, report_timezone="Europe/Berlin", periods=(PERIOD,))


def test_json_keeps_every_digit_and_says_what_is_unknown() -> None:
    """Money is text without an exponent, unknown is null."""
    month = json.loads(rendering.stats_json(STATS))["month"]
    assert month["cost_usd"] == "0.000000150000"
    assert month["completion_tokens"] is None
    assert month["since"] == "2026-08-01"
    assert month["estimated_share"] == 0.5


def test_the_page_shows_the_same_numbers() -> None:
    """With separators, and a question mark for what is unknown."""
    page = rendering.stats_page(STATS)
    assert "<td>1,234</td>" in page
    assert "<td>?</td>" in page
    assert "This month" in page
    assert "Newest call: none yet" in page
    assert "Days begin in Europe/Berlin" in page


def test_what_is_shown_cannot_become_markup() -> None:
    """Text is text."""
    odd = Stats(as_of=MOMENT, newest_call=MOMENT, report_timezone="<script>", periods=())
    assert "<script>" not in rendering.stats_page(odd)
    assert "<script>" not in rendering.message_page("<script>")


def test_the_policy_allows_exactly_the_style_of_the_page() -> None:
    """Nothing else may load or run."""
    [style] = re.findall("<style>(.*)</style>", rendering.stats_page(STATS))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = rendering.SECURITY_HEADERS["Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


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
