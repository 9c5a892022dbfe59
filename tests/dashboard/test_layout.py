from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from dashboard.layout import NAMELESS, UNKNOWN, Cell, facts, grid
from dashboard.report import Report
from tests.fakes.reports import ASKED, EVENT, SUMS, calls, report, sums


def _users(*rows: Mapping[str, Any], **more: Any) -> Report:
    asked = more.pop("asked", ASKED)
    return report("users", sums("users", ("user_id",), *rows, **more), asked=asked)


def _cells(found: Report, name: str = "users") -> dict[str, Cell]:
    shown = grid(found, name)
    return dict(zip((head.name for head in shown.heads), shown.rows[0], strict=True))


def test_a_name_leads_to_what_it_names_with_the_filter_in_force() -> None:
    """Whatever is in it is quoted."""
    asked = ASKED.with_(endpoints=("generate_hint",))
    cell = _cells(_users({"user_id": "a&b=<i>"}, asked=asked))["user_id"]
    assert cell.text == "a&b=<i>"
    assert cell.href == "/admin/user?user=a%26b%3D%3Ci%3E&endpoint=generate_hint"
    assert cell.foreign


def test_calls_without_a_name_can_be_found_too() -> None:
    """They are not forgotten, they are a filter of their own."""
    cell = _cells(_users({"user_id": None}))["user_id"]
    assert (cell.text, cell.href) == (NAMELESS["user_id"], "/admin/user?without=user")


def test_what_is_unknown_is_shown_as_such() -> None:
    """Neither as nothing nor as 0."""
    cell = _cells(_users({"user_id": "ada", "cost_usd": None}))["cost_usd"]
    assert (cell.text, cell.hint, cell.unknown) == (UNKNOWN, "not known", True)


def test_the_exact_value_stands_behind_the_short_one() -> None:
    """As its hint."""
    cell = _cells(_users({"user_id": "ada", "cost_usd": Decimal("1.234567890123")}))["cost_usd"]
    assert (cell.text, cell.hint) == ("$1.23", "$1.234567890123")


def test_heads_sort_the_other_way_round_when_asked_again() -> None:
    """And mark how the table is sorted now; without a word by cost."""
    heads = {head.name: head for head in grid(_users({"user_id": "ada"}), "users").heads}
    assert heads["cost_usd"].sorted == "descending"
    assert heads["cost_usd"].href == "/admin/users?sort=cost_usd"
    assert heads["calls"].sorted is None
    assert heads["calls"].href == "/admin/users?sort=-calls"
    assert heads["user_id"].href == "/admin/users?sort=name"
    assert heads["cost_share"].href is None
    turned = grid(_users({"user_id": "ada"}, asked=ASKED.with_(sort="name")), "users").heads[0]
    assert (turned.sorted, turned.href) == ("ascending", "/admin/users?sort=-name")


def test_totals_and_the_next_page_are_those_of_the_whole_filter() -> None:
    """Text has no total."""
    shown = grid(_users({"user_id": "ada"}, after=("1.5", "ada")), "users")
    assert shown.foot is not None
    assert [cell.text for cell in shown.foot[:3]] == ["Total", "12", "12,345,678"]
    assert shown.more is not None
    assert shown.more.startswith("/admin/users?after=")


def test_a_change_stands_beside_what_has_changed() -> None:
    """Only where something is compared."""
    before = {("ada",): {**SUMS, "calls": 6}}
    assert _cells(_users({"user_id": "ada"}, before=before))["calls"].change is not None
    assert _cells(_users({"user_id": "ada"}))["calls"].change is None


def test_a_call_leads_to_its_own_page() -> None:
    """By its id; its outcome to those that ended alike."""
    found = report("calls", calls("calls", {"outcome": "timeout"}))
    cells = _cells(found, "calls")
    assert cells["created_at"].href == f"/admin/call?call={EVENT}"
    assert cells["outcome"].href == "/admin/calls?outcome=timeout"
    assert cells["outcome"].badge == "timeout"


def test_a_day_leads_to_its_calls() -> None:
    """The one day, with the filter."""
    day = ASKED.last
    found = report("daily", sums("days", ("day",), {"day": day}))
    cell = _cells(found, "days")["day"]
    assert (cell.text, cell.href) == (
        "Sun 2026-11-22",
        "/admin/calls?from=2026-11-22&to=2026-11-22",
    )


def test_facts_leave_out_what_is_not_known() -> None:
    """Of a call; a list of dashes helps nobody."""
    found = facts(report("call", calls("call", {})), ("user_id", "error_type", "cached_tokens"))
    assert [fact.title for fact in found] == ["User"]


def test_a_plain_cell_is_a_text_and_nothing_else() -> None:
    """Whatever else it has is drawn around the text."""
    assert Cell(text="12", number=True).plain
    words = ("hint", "href", "machine", "part", "change", "badge")
    marks = [dict[str, Any]({name: "more"}) for name in words]
    marks += [{name: True} for name in ("unknown", "foreign", "zero")]
    assert not any(Cell(text="12", **mark).plain for mark in marks)
