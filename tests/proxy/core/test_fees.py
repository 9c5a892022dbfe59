"""Hosted tools cost what the price list says, on top of the tokens; unknown stays unknown."""

import json
from decimal import Decimal
from typing import Any

import pytest

from proxy.core.catalog import Catalog, Entry, Period, Tool
from proxy.core.fees import tool_cost
from proxy.core.model import AnswerUnits, BilledUnit, Closing, Container, Opening, ToolCost
from proxy.core.pricing import PriceBook

FEE = Decimal("0.01")


def entry(name: str, **rates: int) -> Entry:
    """Return a model with rates in USD per million tokens."""
    prices = {component: Decimal(rate) for component, rate in rates.items()}
    return Entry(model_id=name, names=(name,), periods=(Period(rates=prices),))


BOOK = PriceBook(
    Catalog(
        version="1",
        entries=(
            entry("thinks", input=1, output=1),
            entry("talks", input=1, output=1),
            entry("searches", input=1, output=1),
            entry("paints", input=5, image_input=10, image_output=40),
        ),
        tools={
            "web_search": Tool(unit_prices={"web_search": FEE}),
            "web_search_preview_reasoning": Tool(
                unit_prices={"web_search_preview_reasoning": FEE}, models=frozenset({"thinks"})
            ),
            "web_search_preview_nonreasoning": Tool(
                unit_prices={"web_search_preview_nonreasoning": Decimal("0.025")},
                models=frozenset({"talks"}),
            ),
            "chat_search_preview_model": Tool(
                unit_prices={"chat_search_preview_model": Decimal("0.025")},
                models=frozenset({"searches"}),
            ),
            "file_search": Tool(unit_prices={"file_search": Decimal("0.0025")}),
            "code_interpreter_container": Tool(
                unit_prices={
                    "code_interpreter_container/session_1g": Decimal("0.03"),
                    "code_interpreter_container/session_4g": Decimal("0.12"),
                    "code_interpreter_container/minute_1g": Decimal("0.0015"),
                }
            ),
        },
    ),
    "1",
)


def fees(
    units: AnswerUnits | None, *, model: str = "thinks", operation_name: str = "responses"
) -> ToolCost:
    """Return what the tools of a call cost."""
    opening = Opening(
        event_id=bytes(16),
        operation_name=operation_name,
        method="POST",
        api_path="/v1/responses",
        upstream="api.openai.com",
        request_model=model,
    )
    return tool_cost(Closing(opening=opening, outcome="ok", answer_units=units), BOOK)


def image(usage: dict[str, Any], model: str | None = "paints", calls: int = 1) -> AnswerUnits:
    """Return what an answer tells in which images were made."""
    return AnswerUnits(image_calls=calls, image_model=model, image_usage=json.dumps(usage).encode())


WROTE = b'{"model":"talks","input_tokens":10,"output_tokens":30,"reasoning_tokens":20}'
PAINTED = {"input_tokens": 10, "output_tokens": 1056, "input_tokens_details": {"image_tokens": 4}}


@pytest.mark.parametrize(
    ("units", "model", "cost"),
    [
        (AnswerUnits(), "thinks", "0"),
        (AnswerUnits(web_searches=4, web_search_tool="web_search"), "talks", "0.04"),
        (AnswerUnits(web_searches=1, web_search_tool="web_search_2025_08_26"), "talks", "0.01"),
        (AnswerUnits(web_searches=1, web_search_tool="web_search_preview"), "thinks", "0.01"),
        (
            AnswerUnits(web_searches=2, web_search_tool="web_search_preview_2025_03_11"),
            "talks",
            "0.05",
        ),
        (AnswerUnits(web_searches=1, web_search_tool="web_search_preview"), "dreams", None),
        (AnswerUnits(web_searches=1), "thinks", None),
        (AnswerUnits(file_searches=3), "thinks", "0.0075"),
        (AnswerUnits(containers=("1g", "4g", "1g")), "thinks", "0.18"),
        (AnswerUnits(containers=("2g",), file_searches=1), "thinks", None),
        (AnswerUnits(container_minutes=(("1g", 7),)), "thinks", "0.0105"),
        (AnswerUnits(container_minutes=(("1g", 7), ("unknown", 0))), "thinks", "0.0105"),
        (AnswerUnits(container_minutes=(("1g", 7), ("unknown", 5))), "thinks", None),
        (AnswerUnits(ran_in=(Container(container_id="c", size="1g"),)), "thinks", "0.0075"),
        (AnswerUnits(ran_in=(Container(container_id="c"),)), "thinks", None),
        (AnswerUnits(authored=(WROTE, WROTE)), "thinks", "0.00008"),
        (AnswerUnits(authored=(WROTE, b"")), "thinks", None),
        (AnswerUnits(authored=(WROTE.replace(b"talks", b"dreams"),)), "thinks", None),
        (AnswerUnits(authored=(WROTE.replace(b"10", b"-1"),)), "thinks", None),
        (AnswerUnits(is_partial=True), "thinks", None),
        (None, "thinks", None),
        (image(PAINTED), "thinks", "0.04231"),
        (image(PAINTED, calls=0), "thinks", "0.04231"),
        (image({"input_tokens": 0, "output_tokens": 0}, calls=0), "thinks", "0"),
        (image({"input_tokens": 0, "output_tokens": 0}), "thinks", None),
        (image(PAINTED, model=None), "thinks", None),
        (image({"input_tokens": "many"}, calls=0), "thinks", None),
        (image({**PAINTED, "dream_tokens": 7}), "thinks", None),
        (AnswerUnits(image_calls=2), "thinks", None),
    ],
)
def test_a_tool_costs_its_fee(units: AnswerUnits | None, model: str, cost: str | None) -> None:
    """Searches by kind of tool and model, containers by size, images at their own model's price."""
    found = fees(units, model=model)
    assert found.cost_usd == (Decimal(cost) if cost else None)
    assert found.list_cost_usd == found.cost_usd


def test_an_image_that_another_model_has_written_is_charged_with_its_tokens() -> None:
    """Beside the usage of the picture that it was written after."""
    found = fees(AnswerUnits(authored=(WROTE,)), operation_name="images.generations")
    assert found.cost_usd == Decimal("0.00004")
    wrote = "talks@start/default/short"
    assert found.units == (
        BilledUnit(component="input", quantity=10, price_id=wrote),
        BilledUnit(component="output", quantity=30, price_id=wrote),
    )
    unknown = fees(AnswerUnits(authored=(b"",)), operation_name="images.edits")
    assert unknown.units == (BilledUnit(component="svg_author", quantity=1, price_id=None),)


def test_what_was_used_is_listed_with_the_place_of_its_price() -> None:
    """The sum can be made again from it, and what has no price is seen."""
    units = AnswerUnits(
        web_searches=2,
        web_search_tool="web_search",
        containers=("9g",),
        image_calls=1,
        image_model="paints",
        image_usage=json.dumps(PAINTED).encode(),
    )
    painted = "paints@start/default/short"
    assert fees(units).units == (
        BilledUnit(component="web_search", quantity=2, price_id="tools"),
        BilledUnit(component="code_interpreter_container/session_9g", quantity=1, price_id=None),
        BilledUnit(component="input", quantity=6, price_id=painted),
        BilledUnit(component="image_input", quantity=4, price_id=painted),
        BilledUnit(component="image_output", quantity=1056, price_id=painted),
    )
    unpriced = BilledUnit(component="image_generation_call", quantity=2, price_id=None)
    assert fees(AnswerUnits(image_calls=2)).units == (unpriced,)


@pytest.mark.parametrize(
    ("operation_name", "model", "cost"),
    [
        ("chat", "searches", "0.025"),
        ("chat", "talks", "0"),
        ("chat", "dreams", "0"),
        ("embeddings", "searches", "0"),
    ],
)
def test_a_search_model_searches_once_a_request(operation_name: str, model: str, cost: str) -> None:
    """No other model of the chat API has fees."""
    assert fees(None, model=model, operation_name=operation_name).cost_usd == Decimal(cost)
