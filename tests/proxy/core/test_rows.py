"""Facts of a call get the form that the columns of the ledger take."""

import json
from decimal import Decimal

import msgspec
import pytest

from proxy.core.model import (
    BilledUnit,
    Closing,
    Cost,
    Opening,
    PriceLine,
    ToolCost,
    Usage,
    UsageSource,
)
from proxy.core.rows import Reading, joined, row_of

OPENING = Opening(
    event_id=bytes.fromhex("019ab3f1c00070008000000000000001"),
    operation_name="chat",
    method="POST",
    api_path="/v1/chat/completions",
    upstream="api.openai.com",
    request_model="m",
    request_bytes=900,
)
CLOSING = Closing(
    opening=OPENING, outcome="ok", latency_us=1_234_500, time_to_first_byte_us=499, usage=b"{}"
)


def line(component: str, quantity: int, amount: str) -> PriceLine:
    """Return one factor of a sum."""
    total = Decimal(amount)
    return PriceLine(
        component=component, quantity=quantity, list_unit_price=total / quantity, amount=total
    )


def test_what_is_not_known_has_no_value() -> None:
    """Neither a sum nor a name is made of nothing."""
    row = row_of(Closing(opening=OPENING, outcome="interrupted"), Reading(), None, None)
    assert (row.model, row.service_tier, row.cost_usd, row.list_cost_usd) == (None,) * 4
    assert (row.latency_ms, row.billed_units, row.raw_usage) == (None, None, None)
    assert (row.usage_source, row.outcome) == ("unavailable", "interrupted")


def test_a_cost_is_that_of_tokens_and_tools() -> None:
    """Tokens have columns of their own; all else is listed with what it is made of."""
    cost = Cost(
        cost_usd=Decimal("0.25"),
        price_id="m@start",
        catalog_version="7",
        lines=(
            line("input", 100, "0.15"),
            line("image/hd", 2, "0.1"),
        ),
    )
    minutes = "code_interpreter_container/minute_4g"
    tools = ToolCost(
        cost_usd=Decimal("0.5"),
        list_cost_usd=Decimal("0.75"),
        units=(BilledUnit(component=minutes, quantity=5, price_id="tools"),),
    )
    reading = Reading(
        Usage(input_tokens=100), UsageSource.REPORTED, cost, problem="odd", tools=tools
    )
    row = row_of(CLOSING, reading, "m-1", "default")
    assert (row.cost_usd, row.tool_cost_usd, row.list_cost_usd) == (
        Decimal("0.75"),
        Decimal("0.5"),
        Decimal("1.0000"),
    )
    assert json.loads(row.billed_units or b"") == [
        {"component": "image/hd", "quantity": 2, "price_id": "m@start"},
        {"component": minutes, "quantity": 5, "price_id": "tools"},
    ]
    assert row.usage_problem == "odd; container_time_estimated"
    assert (row.latency_ms, row.time_to_first_byte_ms) == (1235, 0)


def test_several_problems_are_one_text() -> None:
    """Nothing is said where there is none."""
    assert joined("a", None, "b") == "a; b"
    assert joined(None, None) is None


def test_bytes_that_were_seen_count_more_than_those_announced() -> None:
    """A client may announce a body and send less."""
    seen = msgspec.structs.replace(CLOSING, request_body_bytes=0)
    assert row_of(seen, Reading(), None, None).request_bytes == 0
    assert row_of(CLOSING, Reading(), None, None).request_bytes == 900


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("m" * 513, "m" * 512),
        ("a\0b", "a\ufffdb"),
        ("\u00e9" * 300, "\u00e9" * 256),
        ("m-\u00e9", "m-\u00e9"),
        ("a\ud800", "a?"),
    ],
    ids=["long", "nul", "many octets", "fits", "no character"],
)
def test_an_absurd_name_is_made_to_fit_its_column(name: str, stored: str) -> None:
    """A client may ask for any model; its row must not be refused for that."""
    opening = msgspec.structs.replace(OPENING, request_model=name)
    row = row_of(msgspec.structs.replace(CLOSING, opening=opening), Reading(), name, None)
    assert (row.model, row.request_model) == (stored, stored)


@pytest.mark.parametrize(
    ("raw", "source", "kept"),
    [
        (b'{"a":1}', UsageSource.UNAVAILABLE, True),
        (b'{"a":1}', UsageSource.REPORTED, True),
        (b'{"a":', UsageSource.UNAVAILABLE, False),
        (b'"\\u0000"', UsageSource.REPORTED, False),
    ],
    ids=["JSON", "read before", "cut off", "not storable"],
)
def test_only_what_jsonb_takes_is_kept(raw: bytes, source: UsageSource, *, kept: bool) -> None:
    """What Postgres would refuse must not stop a batch."""
    closing = msgspec.structs.replace(CLOSING, usage=raw)
    row = row_of(closing, Reading(source=source), None, None)
    assert row.raw_usage == (raw if kept else None)
