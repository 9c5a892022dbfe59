"""The official Python client, sync and async: through the proxy it gets what it gets without."""

import asyncio
import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.end_to_end.imitation import (
    EMBEDDINGS_USAGE,
    RESPONSES_USAGE,
    USAGE,
    Imitation,
    imitating,
)
from tests.fakes.running import Metering, metering

HEADERS = {"X-Meter-User": "ada", "X-Meter-Endpoint": "analyze_homework"}
CHAT: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Why? 🌱"}]}
KEY = "sk-of-the-tests"
COST = Decimal("0.00000735")  # 15 fresh, 4 cached and 8 output tokens of gpt-4o-mini
USAGES = [USAGE, RESPONSES_USAGE, EMBEDDINGS_USAGE]


@pytest.fixture
async def imitation() -> AsyncIterator[Imitation]:
    """Return an upstream."""
    async with imitating() as upstream:
        yield upstream


@pytest.fixture
async def running(imitation: Imitation, tmp_path: Path, database: str) -> AsyncIterator[Metering]:
    """Return a proxy in front of it."""
    async with metering(tmp_path, imitation.url, database) as proxy:
        yield proxy


def _everything(base_url: str) -> list[Any]:
    """Return what a backend gets that calls everything, once, in turn."""
    with OpenAI(base_url=f"{base_url}/v1", api_key=KEY, default_headers=HEADERS) as client:
        chat, legacy = client.chat.completions, client.completions
        results: list[Any] = [chat.create(**CHAT)]
        results += list(chat.create(**CHAT, stream=True))
        results += list(chat.create(**CHAT, stream=True, stream_options={"include_usage": True}))
        results.append(legacy.create(model="gpt-4o-mini", prompt="Why?"))
        results += list(legacy.create(model="gpt-4o-mini", prompt="Why?", stream=True))
        results.append(client.responses.create(model="gpt-4o-mini", input="Why?"))
        results += list(client.responses.create(model="gpt-4o-mini", input="Why?", stream=True))
        results.append(client.embeddings.create(model="text-embedding-3-small", input="Why?"))
        results.append(client.responses.retrieve("resp_1"))
        results.append(chat.retrieve("chatcmpl-1"))
        results.append(list(client.models.list()))
        raw = chat.with_raw_response.create(**CHAT)
        results += [raw.status_code, raw.headers["x-request-id"], raw.content, raw.parse()]
        file = ("calls.jsonl", io.BytesIO(b"{}\n" * 100_000))
        results.append(client.files.create(file=file, purpose="batch"))
        results.append(client.files.content("file-1").content)
        with pytest.raises(openai.NotFoundError) as missing:
            chat.create(**CHAT | {"model": "no-such-model"})
        results += [missing.value.body, missing.value.status_code]
    return results


async def _everything_at_once(base_url: str) -> list[Any]:
    """Return what a backend gets that calls many things at the same time."""
    async with AsyncOpenAI(
        base_url=f"{base_url}/v1", api_key=KEY, default_headers=HEADERS
    ) as client:
        chat = client.chat.completions

        async def streamed(**options: Any) -> list[Any]:
            return [chunk async for chunk in await chat.create(**CHAT, stream=True, **options)]

        async def response() -> list[Any]:
            stream = await client.responses.create(model="gpt-4o-mini", input="?", stream=True)
            return [event async for event in stream]

        async def text() -> tuple[str, Any]:
            async with chat.stream(**CHAT) as stream:
                final = await stream.get_final_completion()
            return final.choices[0].message.content or "", final.usage

        return list(
            await asyncio.gather(
                chat.create(**CHAT),
                streamed(),
                streamed(stream_options={"include_usage": True}),
                response(),
                text(),
                client.embeddings.create(model="text-embedding-3-small", input="?"),
                *(chat.create(**CHAT) for _ in range(20)),
            )
        )


async def test_a_backend_in_threads_notices_nothing(
    imitation: Imitation, running: Metering
) -> None:
    """All results are equal; each call has a row; what is fetched again costs nothing."""
    expected = await asyncio.to_thread(_everything, imitation.url)
    assert await asyncio.to_thread(_everything, running.url) == expected
    rows = await running.rows(15)
    assert {row["user_id"] for row in rows} == {"ada"}
    assert {row["endpoint"] for row in rows} == {"analyze_homework"}
    assert Counter((row["operation_name"], row["usage_source"]) for row in rows) == {
        ("chat", "reported"): 4,
        ("chat", "unavailable"): 1,
        ("text_completion", "reported"): 2,
        ("responses", "reported"): 2,
        ("embeddings", "reported"): 1,
        ("responses.retrieve", "unavailable"): 1,
        ("chat.completions.retrieve", "unavailable"): 1,
        ("models.list", "unavailable"): 1,
        ("files.create", "unavailable"): 1,
        ("files.content", "unavailable"): 1,
    }
    _assert_priced(rows)


async def test_a_backend_in_a_loop_notices_nothing(imitation: Imitation, running: Metering) -> None:
    """The same with everything at once: no answer goes to somebody else."""
    expected = await _everything_at_once(imitation.url)
    assert await _everything_at_once(running.url) == expected
    rows = await running.rows(26)
    assert all(row["usage_source"] == "reported" for row in rows)
    assert sum(bool(row["stream"]) for row in rows) == 4
    _assert_priced(rows)


def _assert_priced(rows: list[dict[str, Any]]) -> None:
    """Check that each row has a cost exactly where it has usage, or where the call is free."""
    for row in rows:
        if row["usage_source"] == "unavailable":
            assert (row["raw_usage"], row["total_tokens"]) == (None, None)
            assert row["cost_usd"] == (0 if row["price_id"] == "free" else None)
            continue
        assert json.loads(row["raw_usage"]) in USAGES
        assert row["prompt_tokens"] == 19
        if row["operation_name"] != "embeddings":
            assert (row["completion_tokens"], row["cached_tokens"]) == (8, 4)
            assert row["cost_usd"] == COST
