"""Upstreams under a name, from the official clients to the row."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AzureOpenAI, OpenAI

from proxy.resources import resource
from tests.end_to_end.imitation import USAGE, Imitation, imitating
from tests.fakes.running import Metering, metering

HEADERS = {"X-Meter-User": "ada", "X-Meter-Endpoint": "generate_hint"}
CHAT: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Why? 🌱"}]}
KEY = "sk-of-the-tests"
COST = Decimal("0.00000735")  # 15 fresh, 4 cached and 8 output tokens of gpt-4o-mini
SECTIONS = """
upstreams:
  azure:
    openai_prices: true
    azure_deployments:
      no-such-model: {model: gpt-4o-mini}
    contract: [{from: 2026-01-01, multiplier: x0.5}]
  router:
    models:
      gpt-4o-mini:
        dated: true
        sources: []
        confidence: low
        prices: [{rates: {input: "1", output: "1"}}]
  own:
    free: [chat]
"""


def _write_prices(path: Path) -> None:
    shipped = resource("pricing.yaml").read_text()
    path.write_text(SECTIONS.join(shipped.split("upstreams: {}")))


@pytest.fixture
async def imitation() -> AsyncIterator[Imitation]:
    """Return an upstream."""
    async with imitating() as upstream:
        yield upstream


@pytest.fixture
async def running(imitation: Imitation, tmp_path: Path, database: str) -> AsyncIterator[Metering]:
    """Return a proxy with the same upstream at `/` and under three names, each with its prices."""
    prices = tmp_path / "pricing.yaml"
    await asyncio.to_thread(_write_prices, prices)
    upstreams = dict.fromkeys(("azure", "router", "own"), imitation.url)
    async with metering(
        tmp_path / "data", imitation.url, database, upstreams=upstreams, pricing_file=prices
    ) as proxy:
        yield proxy


def _azure(endpoint: str) -> list[Any]:
    """Return what a backend gets that calls deployments of Azure."""
    with AzureOpenAI(
        azure_endpoint=endpoint,
        api_version="2026-05-01-preview",
        api_key=KEY,
        default_headers=HEADERS,
    ) as client:
        chat = client.chat.completions
        results: list[Any] = [chat.create(**CHAT)]
        results += list(chat.create(**CHAT, stream=True))
        results.append(client.embeddings.create(model="text-embedding-3-small", input="Why?"))
        with pytest.raises(openai.NotFoundError) as missing:
            chat.create(**CHAT | {"model": "no-such-model"})
        results += [missing.value.body, missing.value.status_code]
    return results


async def test_a_backend_that_calls_azure_notices_nothing(
    imitation: Imitation, running: Metering
) -> None:
    """Its rows name the upstream, have its prices, and a model even where the call failed."""
    expected = await asyncio.to_thread(_azure, imitation.url)
    assert await asyncio.to_thread(_azure, f"{running.url}/azure") == expected
    rows = await running.rows(4)
    assert {row["upstream_name"] for row in rows} == {"azure"}
    assert {(row["user_id"], row["endpoint"]) for row in rows} == {("ada", "generate_hint")}
    whole = [row for row in rows if row["operation_name"] == "chat" and row["status"] == 200]
    (failed,) = (row for row in rows if row["status"] == 404)
    (embedding,) = (row for row in rows if row["operation_name"] == "embeddings")
    assert len(whole) == 2
    for row in whole:
        assert row["api_path"] == "/openai/deployments/gpt-4o-mini/chat/completions"
        assert (row["cost_usd"], row["list_cost_usd"]) == (COST / 2, COST)
        assert json.loads(row["raw_usage"]) == USAGE
    assert embedding["cost_usd"] == Decimal("0.00000019")
    assert (failed["model"], failed["cost_usd"]) == ("gpt-4o-mini", None)


def _plain(base_url: str) -> list[Any]:
    with OpenAI(base_url=base_url, api_key=KEY, default_headers=HEADERS) as client:
        chat = client.chat.completions
        results: list[Any] = [chat.create(**CHAT), *chat.create(**CHAT, stream=True)]
        results += list(client.responses.create(model="gpt-4o-mini", input="Why?", stream=True))
        results.append(list(client.models.list()))
    return results


async def test_each_upstream_has_its_prices(imitation: Imitation, running: Metering) -> None:
    """The same calls to four of them, one after another."""
    expected = await asyncio.to_thread(_plain, f"{imitation.url}/v1")
    for name in ("", "/router", "/own"):
        found = await asyncio.to_thread(_plain, f"{running.url}{name}/v1")
        assert found == expected
    costs = {
        (row["upstream_name"], row["operation_name"]): (row["cost_usd"], row["price_id"])
        for row in await running.rows(12)
    }
    listed = (COST, "gpt-4o-mini@2024-10-01/default/short")
    routed = (Decimal("0.000027"), "router/gpt-4o-mini@start/default/short")
    free = (0, "free")
    assert costs == {
        (None, "chat"): listed,
        (None, "responses"): listed,
        (None, "models.list"): free,
        ("router", "chat"): routed,
        ("router", "responses"): routed,
        ("router", "models.list"): free,
        ("own", "models.list"): free,
        ("own", "chat"): free,
        ("own", "responses"): (None, None),
    }
