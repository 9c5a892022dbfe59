import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from typing_extensions import override

from dashboard import formatting, pages
from dashboard.report import Report
from dashboard.roles import Viewer
from tests.fakes.reports import (
    ASKED,
    calls,
    periods,
    prices,
    projection,
    report,
    sums,
)

ADA = Viewer(name="ada", role="admin", via="session", csrf="token")
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "a\nb\r\n<!--",
    "=cmd()|' /C calc'!A0",
    "x" * 10_000,
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
    "👩‍🏫 שלום",
    "{{ 7 * 7 }}",
    "</script><script>alert(1)//",
)


class _Reader(HTMLParser):
    """Collects elements and what could run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    @override
    def handle_data(self, data: str) -> None:
        self.data.append(data)


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    return reader


def _all(name: str) -> list[Report]:
    """Return every page, with a name wherever a client can put one."""
    day = {"day": ASKED.last}
    asked = ASKED.with_(users=(name,), models=(name,), search=name, compare="previous")
    call = calls(
        "call",
        dict.fromkeys(("user_id", "endpoint", "model", "request_model", "error_type"), name)
        | {"metadata": json.dumps({name: name}), "api_path": name, "price_id": name},
    )
    users = sums("users", ("user_id",), {"user_id": name}, before={})
    endpoints = sums("endpoints", ("endpoint",), {"endpoint": name}, {"endpoint": None})
    models = sums("models", ("model", "service_tier"), {"model": name, "service_tier": name})
    unit = prices((f"{name}@start/default/short", "input", "0.1"), (name, name, "1"))
    by_day = sums("days", ("day", "endpoint"), day | {"endpoint": name})
    listed = calls("calls", {"user_id": name, "endpoint": name, "model": name})
    found = {
        "overview": (periods(), by_day, endpoints, users, projection(), listed),
        "users": (users,),
        "user": (sums("days", ("day",), day), endpoints, listed),
        "endpoints": (endpoints,),
        "endpoint": (sums("days", ("day",), day), models, users),
        "models": (models, unit),
        "daily": (sums("days", ("day",), day),),
        "calls": (listed,),
        "call": (call,),
        "pricing": (unit,),
        "exports": (),
    }
    return [report(page, *tables, asked=asked) for page, tables in found.items()]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_a_client_calls_itself_is_text(name: str) -> None:
    """On every page: no element of its making, no handler, no script."""
    for plain, each in zip(_all("plain"), _all(name), strict=True):
        known = {tag for tag, _ in _read(pages.page(plain, ADA)).found}
        reader = _read(pages.page(each, ADA))
        found = reader.found
        assert {tag for tag, _ in found} <= known | {"span"}, each.name
        if each.name not in {"daily", "exports", "endpoint", "user"}:
            assert formatting.text(name) in {data.strip() for data in reader.data}, each.name
        assert not [key for _, held in found for key in held if key.startswith("on")]
        links = [held["href"] for _, held in found if held.get("href")]
        assert all(link and link.startswith(("/", "#")) for link in links)


def test_no_page_needs_what_its_policy_forbids() -> None:
    """No style in elements, no script of its own but data, nothing from elsewhere."""
    for each in _all("ada"):
        text = pages.page(each, ADA)
        for tag, held in _read(text).found:
            assert "style" not in held
            assert tag != "style"
            if tag == "script":
                assert held.get("type") == "application/json" or held.get("src")
        assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text)


def test_tables_can_be_heard() -> None:
    """Captions, scopes, and how a column is sorted."""
    for each in _all("ada"):
        found = _read(pages.page(each, ADA)).found
        tables = [tag for tag, _ in found if tag == "table"]
        assert len(tables) == len([tag for tag, _ in found if tag == "caption"])
        heads = [held for tag, held in found if tag == "th"]
        assert all(held.get("scope") in {"col", "row"} for held in heads), each.name
    users = pages.page(_all("ada")[1], ADA)
    assert 'aria-sort="descending"' in users


def test_data_of_a_chart_cannot_end_its_element() -> None:
    """It stands in the page as JSON."""
    overview = _all("</script><b>&")[0]
    text = pages.page(overview, ADA)
    (data,) = re.findall(r"data-points>(.*?)</script>", text)
    told: dict[str, Any] = json.loads(data)
    assert told["series"][0]["name"] == "</script><b>&"


def test_an_empty_ledger_teaches_how_to_fill_it() -> None:
    """With a call that can be copied."""
    empty = report("overview", periods(), newest=None)
    missing = [sums("days", ("day", "endpoint")), sums("endpoints", ("endpoint",))]
    users = sums("users", ("user_id",))
    empty = report(
        "overview", periods(), *missing, users, projection(), calls("calls"), newest=None
    )
    text = pages.page(empty, ADA)
    assert "No call has come through yet" in text
    assert "X-Meter-User: u-17" in text
    assert "openai-meter demo" in text


def test_a_filter_that_finds_nothing_says_so() -> None:
    """And what to do."""
    text = pages.page(report("calls", calls("calls"), asked=ASKED), ADA)
    assert "Take a filter away" in text


def test_log_in_and_messages_are_pages_too() -> None:
    """With the hidden fields of the form, and text as text."""
    text = pages.login_page(problem="<b>", hidden={"csrf": '"y', "next": "/admin"})
    names = {held.get("name") for tag, held in _read(text).found if tag == "input"}
    assert names == {"csrf", "next", "user", "password"}
    assert "<b>" not in text
    assert "<script>" not in pages.message_page("<script>")
