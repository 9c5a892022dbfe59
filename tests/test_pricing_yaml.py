import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.core.model import Cost, Usage
from proxy.core.pricelist import read_catalog
from proxy.core.registry import FAMILIES, REGISTRY
from proxy.core.usage import read_usage
from proxy.errors import (
    NoPricePeriodError,
    NoTokenCountError,
    UnknownModelError,
    UnknownRateError,
    UnknownTierError,
    UnknownUpliftError,
    UnpricedError,
)
from proxy.pricefile import load_price_book, read_document

BOOK = load_price_book(Path(__file__).parents[1] / "pricing.yaml")
KINDS = {"chat.completions", "completions", "responses", "embeddings"}


def tokens(read: int, written: int = 0, **parts: Any) -> Usage:
    """Return a usage with these totals."""
    return Usage(input_tokens=read, output_tokens=written, **parts)


def cost_of(usage: Usage, model: str | None, **facts: Any) -> Cost:
    """Price a call of today to OpenAI by the shipped file, unless said otherwise."""
    call: dict[str, Any] = {
        "response_model": model,
        "request_model": None,
        "deployment": None,
        "service_tier": None,
        "operation_name": "chat",
        "upstream": "api.openai.com",
        "at": datetime(2026, 11, 22, tzinfo=UTC),
    }
    return BOOK.cost(usage, **{**call, **facts})


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
    priced = cost_of(usage, model, **facts)
    assert str(priced.cost_usd) == cost
    assert price_id in {None, priced.price_id}
    assert priced.catalog_version == BOOK.catalog_version


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
        cost_of(usage, model, **facts)
    assert caught.value.reason == reason


def test_the_shipped_rates_are_whole_picodollars_under_unique_names() -> None:
    """numeric(20,12) holds each of them, and the pair of price_id and component is a key."""
    rates = list(BOOK.rates())
    assert len({(rate.price_id, rate.component) for rate in rates}) == len(rates)
    by_the_minute = {"audio_second", "session_second"}
    whole = [rate for rate in rates if rate.component not in by_the_minute]
    assert all(rate.list_unit_price.as_tuple().exponent == -12 for rate in whole)


def test_free_calls_are_known_by_the_names_of_operations() -> None:
    """A misspelled name would be a call that is never free; a charged one must not be listed."""
    document = read_document((Path(__file__).parents[1] / "pricing.yaml").read_bytes())
    free = read_catalog(document).free
    operations = {o.name: o for patterns in REGISTRY.values() for o in patterns.values()}
    assert free - operations.keys() == set(FAMILIES)
    assert not any(operations[name].reads_usage for name in free & operations.keys())


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
            exchange["model"],
            request_model=exchange["request_model"],
            service_tier=exchange["service_tier"],
        )
        expected = pytest.approx(exchange["cost_reference"], rel=1e-9)
        assert float(cost.cost_usd) == expected, exchange["id"]
        seen += 1
    assert seen
