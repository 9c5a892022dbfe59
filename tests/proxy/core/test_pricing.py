import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.catalog import Catalog, Contract, Deployment, Entry, Period
from proxy.core.model import Cost, PriceLine, Usage
from proxy.core.pricing import PriceBook, PriceRate, decompose
from proxy.core.usage import read_usage
from proxy.errors import (
    NoPricePeriodError,
    NoTokenCountError,
    UnknownModelError,
    UnknownRateError,
    UnknownTierError,
    UnknownUpliftError,
    UnpricedError,
    UsageError,
)
from proxy.pricefile import load_price_book

SHIPPED = load_price_book(Path(__file__).parents[3] / "pricing.yaml")
TODAY = datetime(2026, 11, 22, tzinfo=UTC)
RATES = {"input": Decimal(2), "output": Decimal(8)}
KINDS = {"chat.completions", "completions", "responses", "embeddings"}


def cost_of(usage: Usage, book: PriceBook = SHIPPED, **facts: Any) -> Cost:
    """Price a call of today to OpenAI, unless said otherwise."""
    call: dict[str, Any] = {
        "response_model": None,
        "request_model": None,
        "deployment": None,
        "service_tier": None,
        "operation_name": "chat",
        "upstream": "api.openai.com",
        "at": TODAY,
    }
    return book.cost(usage, **{**call, **facts})


def tokens(read: int, written: int = 0, **parts: Any) -> Usage:
    """Return a usage with these totals."""
    return Usage(input_tokens=read, output_tokens=written, **parts)


def book_of(*entries: Entry, **sections: Any) -> PriceBook:
    """Return a book of these entries; of a model m at 2 and 8 dollars where there are none."""
    model = Entry(model_id="m", names=("m",), periods=(Period(rates=RATES),))
    return PriceBook(Catalog(version="t", entries=entries or (model,), **sections), "t+0")


@pytest.mark.parametrize(
    ("model", "usage", "facts", "cost", "price_id"),
    [
        (
            "gpt-4o-mini-2024-07-18",
            tokens(2024, 345, cache_read_input_tokens=1024),
            {},
            "0.000433800000",
            "gpt-4o-mini@2024-10-01/default/short",
        ),
        (
            "gpt-6.2-sol",
            tokens(272_000, 1000, cache_read_input_tokens=172_000),
            {},
            "0.227200000000",
            "gpt-6.2-sol@2026-11-17/default/short",
        ),
        (
            "gpt-6.2-sol",
            tokens(272_001, 1000, cache_read_input_tokens=172_000),
            {},
            "0.449404000000",
            "gpt-6.2-sol@2026-11-17/default/long",
        ),
        (
            "o3",
            tokens(10, 10),
            {"at": datetime(2025, 6, 9, 23, 59, 59, 999999, UTC)},
            "0.000500000000",
            "o3@start/default/short",
        ),
        (
            "o3",
            tokens(10, 10),
            {"at": datetime(2025, 6, 10, tzinfo=UTC)},
            "0.000100000000",
            "o3@2025-06-10/default/short",
        ),
        (
            "ft:gpt-4o-2024-08-06:acme::abc",
            tokens(10, 10),
            {},
            "0.000187500000",
            "ft:gpt-4o@start/default/short",
        ),
        (
            "gpt-6.2-sol",
            tokens(10),
            {"service_tier": "ultrafast", "at": datetime(2027, 2, 28, tzinfo=UTC)},
            "0.000060000000",
            "gpt-6.2-sol@2026-11-17/ultrafast/short",
        ),
        (
            "gpt-6.2-sol",
            tokens(10),
            {"service_tier": "ultrafast", "at": datetime(2027, 3, 1, tzinfo=UTC)},
            "0.000120000000",
            "gpt-6.2-sol@2027-03-01/ultrafast/short",
        ),
        (
            "gpt-6-sol",
            tokens(
                100,
                cache_write_input_tokens=60,
                cache_write_12h_input_tokens=20,
                cache_read_input_tokens=30,
            ),
            {},
            "0.000226000000",
            "gpt-6-sol@start/default/short",
        ),
        (
            "gpt-4o",
            tokens(10, cache_write_input_tokens=10, cache_write_12h_input_tokens=4),
            {},
            "0.000025000000",
            "gpt-4o@2024-10-02/default/short",
        ),
        (
            "gpt-5.4-2026-03-05",
            tokens(1_000_000, cache_read_input_tokens=1_000_000),
            {"service_tier": "flex"},
            "0.250000000000",
            "gpt-5.4@start/flex/long",
        ),
        (
            "gpt-5-nano",
            tokens(1, cache_read_input_tokens=1),
            {"service_tier": "flex"},
            "2.500E-9",
            "gpt-5-nano@start/flex/short",
        ),
        (
            "gpt-5.4",
            tokens(1000),
            {"upstream": "EU.api.openai.com:443"},
            "0.002750000000",
            "gpt-5.4@start/default/short/regional_processing",
        ),
        (
            "gpt-4o",
            tokens(1000),
            {"upstream": "eu.api.openai.com"},
            "0.002500000000",
            "gpt-4o@2024-10-02/default/short",
        ),
        (
            "gpt-6-luna",
            tokens(1000, 1000),
            {"operation_name": "decisions"},
            "0.000100000000",
            "gpt-6-luna@start/default/short/decisions",
        ),
        (
            "gpt-4o-audio-preview",
            tokens(30, 50, audio_input_tokens=20, audio_output_tokens=40),
            {},
            "0.004125000000",
            "gpt-4o-audio-preview@2024-12-17/default/short",
        ),
        (
            "gpt-5",
            tokens(8),
            {"service_tier": "fast"},
            "0.000020000000",
            "gpt-5@start/priority/short",
        ),
        (
            "gpt-5",
            tokens(8),
            {"service_tier": "auto"},
            "0.000010000000",
            "gpt-5@start/default/short",
        ),
        ("text-embedding-3-small", Usage(input_tokens=3), {}, "6.0000E-8", None),
        ("davinci:2023-07-21-v2", tokens(8, 16), {}, "0.000048000000", None),
        ("gpt-4o", tokens(0), {}, "0E-12", None),
    ],
)
def test_a_call_costs_what_can_be_worked_out_by_hand(
    model: str, usage: Usage, facts: dict[str, Any], cost: str, price_id: str | None
) -> None:
    """Sums are exact, written with twelve places, and name the entry they come from."""
    priced = cost_of(usage, response_model=model, **facts)
    assert str(priced.cost_usd) == cost
    assert price_id in {None, priced.price_id}
    assert priced.catalog_version == SHIPPED.catalog_version


@pytest.mark.parametrize(
    ("model", "usage", "facts", "error", "reason"),
    [
        ("gpt-5.7", tokens(1), {}, UnknownModelError, "unknown_model"),
        (None, tokens(1), {}, UnknownModelError, "unknown_model"),
        ("gpt-4o", tokens(1), {"service_tier": "ultrafast"}, UnknownTierError, "unknown_tier"),
        ("gpt-5", tokens(1), {"service_tier": "background_2h"}, UnknownTierError, "unknown_tier"),
        ("gpt-5", tokens(1), {"service_tier": "scale"}, UnknownTierError, "unknown_tier"),
        ("gpt-4o", tokens(1, audio_input_tokens=1), {}, UnknownRateError, "unknown_rate"),
        ("gpt-5.5", tokens(272_001), {"service_tier": "fast"}, UnknownRateError, "unknown_rate"),
        (
            "gpt-6-cyber",
            tokens(1, cache_write_input_tokens=1, cache_write_12h_input_tokens=1),
            {},
            UnknownRateError,
            "unknown_rate",
        ),
        (
            "gpt-6.2-sol",
            tokens(1),
            {"at": datetime(2026, 11, 16, 23, 59, tzinfo=UTC)},
            NoPricePeriodError,
            "no_price_period",
        ),
        (
            "gpt-6.2-sol",
            tokens(1),
            {"upstream": "us.api.openai.com"},
            UnknownUpliftError,
            "unknown_uplift",
        ),
        ("whisper-1", Usage(total_tokens=3), {}, NoTokenCountError, "no_token_count"),
    ],
)
def test_what_has_no_price_is_an_error_with_its_reason(
    model: str | None, usage: Usage, facts: dict[str, Any], error: type[UnpricedError], reason: str
) -> None:
    """A wrong sum is worse than none."""
    with pytest.raises(error) as caught:
        cost_of(usage, response_model=model, **facts)
    assert caught.value.reason == reason


def test_the_model_of_the_answer_decides_then_the_request_then_the_deployment() -> None:
    """The answer names the snapshot that an alias stood for."""
    other = Entry(model_id="n", names=("n",), periods=(Period(rates={"input": Decimal(3)}),))
    model = Entry(model_id="m", names=("m",), periods=(Period(rates=RATES),))
    book = book_of(model, other, deployments={"eu/chat": Deployment(model="n")})
    azure = {"deployment": "chat", "upstream": "eu.openai.azure.com"}

    def price_id(response: str | None, request: str | None, **facts: str) -> str:
        models = {"response_model": response, "request_model": request}
        return cost_of(tokens(1), book, **models, **facts).price_id

    assert price_id("m", "n").startswith("m@")
    assert price_id("router", "n").startswith("n@")
    assert price_id("", "m", **azure).startswith("m@")
    assert price_id(None, "chat", **azure).startswith("n@")
    assert price_id(None, "chat", upstream="eu.openai.azure.com").startswith("n@")
    with pytest.raises(UnknownModelError):
        price_id(None, "chat", upstream="api.openai.com")


def test_a_deployment_may_cost_more_whatever_names_the_model() -> None:
    """Azure's regional factor belongs to the deployment, the rates to the model."""
    book = book_of(deployments={"chat": Deployment(model="m", factor=Decimal("1.10"))})
    cost = cost_of(tokens(1_000_000), book, response_model="m", deployment="chat")
    assert cost.cost_usd == Decimal("2.2")
    assert cost.price_id == "m@start/default/short/x1.10"
    assert cost.lines[0].list_unit_price == Decimal("0.0000022")


def test_a_contract_is_applied_after_the_list_cost_which_stays_visible() -> None:
    """The lines hold the list cost, the sum what was negotiated, the price_id both."""
    contracts = (
        Contract(start=datetime(2026, 1, 1, tzinfo=UTC), factor=Decimal("0.93")),
        Contract(start=datetime(2027, 1, 1, tzinfo=UTC), factor=Decimal("0.90")),
    )
    book = book_of(contracts=contracts)
    now = cost_of(tokens(1, 1), book, response_model="m")
    assert sum(line.amount for line in now.lines) == Decimal("0.00001")
    assert now.cost_usd == Decimal("0.0000093")
    assert now.price_id == "m@start/default/short/contract-x0.93"
    later = cost_of(tokens(1, 1), book, response_model="m", at=datetime(2027, 1, 1, tzinfo=UTC))
    assert later.price_id == "m@start/default/short/contract-x0.90"
    before = cost_of(tokens(1, 1), book, response_model="m", at=datetime(2025, 1, 1, tzinfo=UTC))
    assert before.cost_usd == Decimal("0.00001")


def test_only_what_is_finer_than_the_ledger_is_rounded_half_to_even() -> None:
    """A factor may make a unit price that no list has."""
    fine = {"d": Deployment(model="m", factor=Decimal("1.00000025"))}
    book = book_of(deployments=fine)
    cost = cost_of(tokens(3), book, response_model="m", deployment="d")
    assert cost.lines[0].list_unit_price == Decimal("0.0000020000005")
    assert cost.cost_usd == Decimal("0.000006000002")


def test_the_lines_multiply_to_the_sum() -> None:
    """Anybody can recompute a cost from its lines."""
    cost = cost_of(tokens(10, 5, cache_read_input_tokens=4), response_model="gpt-5")
    assert cost.lines == (
        PriceLine(
            component="input",
            quantity=6,
            list_unit_price=Decimal("0.00000125"),
            amount=Decimal("0.0000075"),
        ),
        PriceLine(
            component="cached_input",
            quantity=4,
            list_unit_price=Decimal("0.000000125"),
            amount=Decimal("0.0000005"),
        ),
        PriceLine(
            component="output",
            quantity=5,
            list_unit_price=Decimal("0.00001"),
            amount=Decimal("0.00005"),
        ),
    )


def test_every_price_of_a_cost_is_among_the_rates() -> None:
    """The table price_rate explains each row, under a contract too."""
    contract = Contract(
        start=datetime(2026, 1, 1, tzinfo=UTC), factor=Decimal("0.9"), models=frozenset({"m"})
    )
    n = Entry(model_id="n", names=("n",), periods=(Period(rates={"input": Decimal(1)}),))
    m = Entry(model_id="m", names=("m",), periods=(Period(rates={"input": Decimal(2)}),))
    assert list(book_of(m, n, contracts=(contract,)).rates()) == [
        PriceRate(price_id=price_id, component="input", list_unit_price=Decimal(price))
        for price_id, price in [
            ("m@start/default/short", "0.000002"),
            ("m@start/default/short/contract-x0.9", "0.000002"),
            ("n@start/default/short", "0.000001"),
        ]
    ]


def test_the_shipped_rates_are_whole_picodollars_under_unique_names() -> None:
    """numeric(20,12) holds each of them, and the pair of price_id and component is a key."""
    rates = list(SHIPPED.rates())
    assert len({(rate.price_id, rate.component) for rate in rates}) == len(rates)
    assert all(rate.list_unit_price.as_tuple().exponent == -12 for rate in rates)


def test_components_share_no_token() -> None:
    """Totals include their parts: subtract, never add."""
    usage = Usage(
        input_tokens=1000,
        cache_read_input_tokens=300,
        cache_write_input_tokens=100,
        cache_write_12h_input_tokens=40,
        audio_input_tokens=200,
        cache_read_audio_input_tokens=50,
        image_input_tokens=90,
        cache_read_image_input_tokens=20,
        output_tokens=500,
        reasoning_output_tokens=450,
        audio_output_tokens=30,
        image_output_tokens=7,
    )
    assert decompose(usage) == {
        "input": 380,
        "cached_input": 230,
        "cache_write": 60,
        "cache_write_12h": 40,
        "audio_input": 150,
        "cached_audio_input": 50,
        "image_input": 70,
        "cached_image_input": 20,
        "output": 463,
        "audio_output": 30,
        "image_output": 7,
    }


@pytest.mark.parametrize(
    ("usage", "message"),
    [
        (tokens(10, cache_read_input_tokens=11), "input_tokens is 10, but its parts make 11"),
        (tokens(0, 5, audio_output_tokens=6), "output_tokens is 5, but its parts make 6"),
        (
            tokens(9, audio_input_tokens=1, cache_read_audio_input_tokens=2),
            "audio_input_tokens is 1, but its parts make 2",
        ),
        (
            tokens(9, image_input_tokens=1, cache_read_image_input_tokens=2),
            "image_input_tokens is 1, but its parts make 2",
        ),
        (
            tokens(9, audio_input_tokens=1, cache_read_audio_input_tokens=1),
            "cache_read_input_tokens is 0, but its parts make 1",
        ),
        (
            tokens(9, cache_write_12h_input_tokens=1),
            "cache_write_input_tokens is 0, but its parts make 1",
        ),
        (tokens(10**13), "input_tokens is 10000000000000; expected at most 1000000000000"),
    ],
)
def test_usage_that_contradicts_itself_is_refused_with_both_numbers(
    usage: Usage, message: str
) -> None:
    """A negative rest would be a discount that nobody gave."""
    with pytest.raises(UsageError) as caught:
        cost_of(usage, response_model="gpt-4o")
    assert str(caught.value) == message


def test_a_cost_that_the_ledger_cannot_hold_is_refused() -> None:
    """One absurd row must not stop the others of its batch."""
    with pytest.raises(UsageError, match=r"costs 600000000\.0+ USD; expected less than 100000000"):
        cost_of(tokens(0, 10**12), response_model="o1-pro")


COUNTS = st.integers(0, 10**7)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Draw a usage whose parts fit into their totals."""
    cached, written, fresh = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    written_12h = draw(st.integers(0, written))
    return Usage(
        input_tokens=fresh + cached + written,
        cache_read_input_tokens=cached,
        cache_write_input_tokens=written,
        cache_write_12h_input_tokens=written_12h,
        output_tokens=draw(COUNTS),
    )


def added(one: Usage, other: Usage) -> Usage:
    """Return the usage of both together."""
    pairs = ((name, getattr(one, name), getattr(other, name)) for name in Usage.__slots__)
    counts: dict[str, Any] = {name: a + b for name, a, b in pairs if isinstance(a, int)}
    return Usage(**counts)


@given(usages(), usages(), st.sampled_from(["default", "batch", "priority"]))
def test_cost_is_additive(one: Usage, other: Usage, tier: str) -> None:
    """Two calls cost what one call with their tokens costs, to the last digit."""
    period = Period(
        rates={**RATES, "cached_input": Decimal("0.075"), "cache_write": Decimal("3.125")},
        tiers={"batch": Decimal("0.5"), "priority": {**RATES, "cached_input": Decimal("0.138")}},
    )
    fallback = {"cache_write": "input", "cache_write_12h": "cache_write"}
    entry = Entry(model_id="m", names=("m",), periods=(period,))
    book = book_of(entry, fallback=fallback)
    first, second, both = (
        cost_of(usage, book, response_model="m", service_tier=tier).cost_usd
        for usage in (one, other, added(one, other))
    )
    assert first + second == both


@given(usages())
def test_components_add_up_to_the_totals(usage: Usage) -> None:
    """No token is lost and none is counted twice."""
    assert sum(decompose(usage).values()) == (usage.input_tokens or 0) + (usage.output_tokens or 0)


def recorded(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the recorded exchanges whose cost is known."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            exchange = json.loads(line)
            known = exchange["endpoint"] in KINDS and exchange.get("cost_reference") is not None
            if known and "include_usage_mismatch" not in exchange["features"]:
                yield exchange


@pytest.mark.corpus
def test_recorded_calls_cost_what_two_calculators_say(corpus_path: Path) -> None:
    """The references are floats, so they agree to nine digits."""
    seen = 0
    for exchange in recorded(corpus_path):
        cost = cost_of(
            read_usage(msgspec.json.encode(exchange["usage"])),
            response_model=exchange["model"],
            request_model=exchange["request_model"],
            service_tier=exchange["service_tier"],
        )
        expected = pytest.approx(exchange["cost_reference"], rel=1e-9)
        assert float(cost.cost_usd) == expected, exchange["id"]
        seen += 1
    assert seen
