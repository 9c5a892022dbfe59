from dataclasses import replace
from datetime import date

import pytest

from dashboard import navigation
from dashboard.report import Report
from tests.fakes.reports import ASKED, calls, report, sums


def _users(**changes: object) -> Report:
    table = sums("users", ("user_id",), {"user_id": "ada"})
    return report("users", table, asked=ASKED.with_(**changes))


def test_pages_keep_days_and_filters_but_not_what_they_do_not_know() -> None:
    """Sums know nothing of outcomes and metadata: a link with them would be refused."""
    asked = ASKED.with_(endpoints=("e",), outcomes=("ok",), metadata=(("a", "b"),), sort="-calls")
    links = {item["title"]: item["href"] for item in navigation.pages(report("calls", asked=asked))}
    assert links["Overview"] == "/admin?endpoint=e"
    assert links["Calls"] == "/admin/calls?endpoint=e&outcome=ok&metadata=a%3Db"
    assert links["Pricing"] == "/admin/pricing"


def test_the_page_of_one_user_leads_back_to_all_of_them() -> None:
    """Without the user, that would be a list of one."""
    found = report("user", asked=ASKED.with_(users=("ada",), range="7d"))
    items = {item["title"]: item for item in navigation.pages(found)}
    assert items["Users"]["href"] == "/admin/users?range=7d"
    assert items["Users"]["current"]


def test_presets_are_links_and_the_one_in_force_is_marked() -> None:
    """With the rest of the address."""
    presets = navigation.presets(_users(search="ad"))
    assert [item["title"] for item in presets if item["current"]] == ["30 days"]
    assert presets[0]["href"] == "/admin/users?range=today&search=ad"


def test_one_can_step_through_time() -> None:
    """As many days back; forward only as far as there is time."""
    steps = navigation.steps(
        _users(range="custom", first=date(2026, 11, 8), last=date(2026, 11, 14))
    )
    assert steps == {
        "back": "/admin/users?from=2026-11-01&to=2026-11-07",
        "forward": "/admin/users?from=2026-11-15&to=2026-11-21",
    }
    now = navigation.steps(_users())
    assert now is not None
    assert now["forward"] is None
    assert navigation.steps(_users(range="all", first=None)) is None


def test_chips_take_one_filter_away_each() -> None:
    """And say what it is; what a page is about is none."""
    chips = navigation.chips(_users(users=("<b>",), without=("model",), compare="previous"))
    assert [(chip["name"], chip["value"]) for chip in chips] == [
        ("user", "<b>"),
        ("", "no model"),
        ("against", "the days before"),
    ]
    assert chips[0]["href"] == "/admin/users?without=model&compare=previous"
    assert navigation.chips(report("user", asked=ASKED.with_(users=("ada",)))) == []


@pytest.mark.parametrize(("page", "offered"), [("users", False), ("calls", True)])
def test_the_form_offers_what_its_page_understands(page: str, *, offered: bool) -> None:
    """And keeps what is in force."""
    form = navigation.form(report(page, asked=ASKED.with_(models=("m",))), {})
    assert ("metadata" in {field["name"] for field in form["fields"]}) is offered
    assert bool(form["outcomes"]) is offered
    assert bool(form["comparisons"]) is not offered
    assert form["kept"] == [("model", "m")]


def test_files_hold_what_the_page_shows() -> None:
    """The same address with another ending."""
    found = navigation.downloads(_users(sort="-calls"), may_export=True)
    assert [item["href"] for item in found] == [
        "/admin/users.csv?sort=-calls",
        "/admin/users.csv?sort=-calls&dialect=raw",
    ]
    assert navigation.json_twin(_users()) == "/admin/users.json"
    assert navigation.downloads(report("call", calls("call", {})), may_export=True) == []
    assert navigation.downloads(_users(), may_export=False) == []


def test_exports_offer_users_calls_and_days() -> None:
    """Each for people and for machines, with the filter."""
    asked = report("exports", asked=ASKED.with_(metadata=(("a", "b"),)))
    offers = navigation.offers(asked, may_export=True)
    links = [link["href"] for offer in offers for link in offer["links"]]
    assert "/api/usage/export?metadata=a%3Db" in links
    assert "/admin/daily.csv" in links
    given = navigation.offers(asked, may_export=False)
    assert [offer["title"] for offer in given] == ["By day", "By endpoint", "By model"]


def test_a_form_for_those_who_see_no_users_asks_for_none() -> None:
    """Nor for metadata, which may name them; what it suggests is what it asks for."""
    names = {"user": ("ada",), "endpoint": ("hint",)}
    form = navigation.form(replace(report("calls"), blind=True), names)
    assert [field["name"] for field in form["fields"]] == ["endpoint", "model", "tier"]
    assert [field["options"] for field in form["fields"]] == [("hint",), (), ()]


def test_the_form_offers_what_the_page_takes() -> None:
    """Service tiers too; how calls of an endpoint ended is known of all of them alone."""
    names = {
        page: [field["name"] for field in navigation.form(report(page), {})["fields"]]
        for page in ("calls", "users", "endpoint")
    }
    assert names == {
        "calls": ["user", "endpoint", "model", "tier", "metadata"],
        "users": ["user", "endpoint", "model", "tier"],
        "endpoint": [],
    }
