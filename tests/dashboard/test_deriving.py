from decimal import Decimal
from typing import Any

import pytest

from dashboard.deriving import story
from dashboard.report import Table
from dashboard.tables import LINES
from tests.fakes.reports import calls, report


def _story(*lines: tuple[Any, ...], **call: object) -> dict[str, Any]:
    components = Table(name="components", title="Components", columns=LINES[:5], rows=lines)
    return story(report("call", calls("call", call), components))


def test_each_component_is_quantity_times_price() -> None:
    """With every digit of the amount, and the price as price lists have it."""
    told = _story(
        ("input", 1100, Decimal("0.00000075"), Decimal("0.000825"), Decimal("0.000825")),
        ("web_search", 2, Decimal("0.01"), Decimal("0.02"), Decimal("0.019")),
    )
    tokens, fee = told["lines"]
    assert (tokens["quantity"], tokens["price"], tokens["amount"]) == (
        "1,100",
        "$0.75 / 1M",
        "$0.000825",
    )
    assert tokens["exact_price"] == "$0.00000075 for one"
    assert (fee["component"], fee["price"], fee["amount"]) == ("web search", "$0.01", "$0.019")
    assert fee["words"] == "$0.02 by the list"
    assert told["cost"].hint == "$0.001575"
    assert told["source"] == "Prices of gpt-5.4-mini@start/default/short, catalogue 2026-11-22.3."


def test_a_price_that_is_unknown_stays_unknown() -> None:
    """And the page says why."""
    told = _story(
        ("session_1g", Decimal("0.5"), None, None, None), unpriced_reason="unknown_tool_fee"
    )
    (line,) = told["lines"]
    assert (line["quantity"], line["price"], line["amount"]) == ("0.5", None, None)
    assert "fee is not known" in told["why_not"]
    assert not told["priced"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"cost_usd": None, "unpriced_reason": "unknown_model"}, "in no price list"),
        ({"cost_usd": None, "unpriced_reason": "odd"}, "priced: odd"),
        ({"cost_usd": None}, "what this call used"),
        ({"cost_usd": Decimal(0), "price_id": "free"}, "cost nothing"),
    ],
)
def test_a_call_without_a_cost_says_why(call: dict[str, object], words: str) -> None:
    """Unknown, unavailable and free are three things."""
    assert words in story(report("call", calls("call", call)))["why_not"]


def test_metadata_leads_to_the_calls_with_the_same() -> None:
    """Whatever its name is, unless it is too long to be asked for."""
    odd = '{"course": "algebra-1", "n": 3, "a=b": "c", "": "d"}'
    found = {item["name"]: item for item in _story(metadata=odd)["metadata"]}
    assert found["course"]["href"] == "/admin/calls?range=all&metadata=course%3Dalgebra-1"
    assert found["n"]["value"] == "3"
    asked = "/admin/calls?range=all&metadata=%7B%22{}%22%3A+%22{}%22%7D"
    assert found["a=b"]["href"] == asked.format("a%3Db", "c")
    assert found[""]["href"] == asked.format("", "d")
    for length, can_be_asked_for in ((8185, True), (8186, False)):
        (long,) = _story(metadata=f'{{"course": "{"x" * length}"}}')["metadata"]
        assert (long["href"] is not None) == can_be_asked_for
    assert _story(metadata=None)["metadata"] == []
    assert _story(metadata="[1]")["metadata"] == []


def test_the_story_names_who_and_what() -> None:
    """Also where nobody was named."""
    assert _story()["sentence"]["user"] == "ada"
    told = _story(user_id=None, endpoint=None, model=None)["sentence"]
    assert told["user"] == "nobody who was named"
    assert told["endpoint"] == "an unnamed endpoint"
    assert "an unknown model" in told["after"]
