"""Something real that is not ours: llama.cpp's server, called with the official client."""

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.end_to_end.tiny_model import NAME
from tests.fakes.running import Metering, metering

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("gguf") is None,
        reason="needs the packages of the e2e extra: requirements/e2e.txt",
    ),
]

PROMPT = "Why is the sky blue? 🌱"
CHAT: Any = {"model": NAME, "messages": [{"role": "user", "content": PROMPT}]}
CHAT |= {"max_tokens": 24, "temperature": 0}
LEGACY: Any = {"model": NAME, "prompt": PROMPT, "max_tokens": 24, "temperature": 0}
RESPONSE: Any = {"model": NAME, "input": PROMPT, "max_output_tokens": 24, "temperature": 0}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[str]:
    """Return the base URL of llama.cpp's server, in a process of its own."""
    pipe, module = asyncio.subprocess.PIPE, "tests.end_to_end.tiny_model"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, str(tmp_path), "--embedding"),
        cwd=Path(__file__).parents[2],
        stdin=pipe,
        stdout=pipe,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            yield (await process.stdout.readline()).decode().strip()
    finally:
        async with asyncio.timeout(60):
            await process.communicate(b"")


@pytest.fixture
async def running(server: str, tmp_path: Path, database: str) -> AsyncIterator[Metering]:
    """Return a proxy in front of it."""
    async with metering(tmp_path / "data", server, database) as proxy:
        yield proxy


@pytest.fixture
async def client(running: Metering) -> AsyncIterator[AsyncOpenAI]:
    """Return the official client of it."""
    headers = {"X-Meter-User": "ada"}
    async with AsyncOpenAI(
        base_url=f"{running.url}/v1", api_key="sk-of-the-tests", default_headers=headers
    ) as chosen:
        yield chosen


async def test_rows_are_what_the_client_saw(running: Metering, client: AsyncOpenAI) -> None:
    """Chat, legacy completion, response, embedding: the same counts in answer and row."""
    chat = await client.chat.completions.create(**CHAT)
    legacy = await client.completions.create(**LEGACY)
    response = await client.responses.create(**RESPONSE)
    embedding = await client.embeddings.create(model=NAME, input=PROMPT)
    rows = await running.rows(4)
    by_operation = {row["operation_name"]: row for row in rows}
    assert chat.usage is not None
    assert legacy.usage is not None
    assert response.usage is not None
    _assert_same(by_operation["chat"], chat.usage, chat.id)
    _assert_same(by_operation["text_completion"], legacy.usage, legacy.id)
    _assert_same(by_operation["responses"], response.usage, response.id)
    assert by_operation["embeddings"]["prompt_tokens"] == embedding.usage.prompt_tokens > 0


async def test_streams_are_what_the_client_saw(running: Metering, client: AsyncOpenAI) -> None:
    """Asked for its usage, a stream tells it to both."""
    asked: Any = {"include_usage": True}
    chat = await client.chat.completions.create(**CHAT, stream=True, stream_options=asked)
    chunks = [chunk async for chunk in chat]
    response = await client.responses.create(**RESPONSE, stream=True)
    final = [event async for event in response][-1].response
    rows = {row["operation_name"]: row for row in await running.rows(2)}
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 24
    _assert_same(rows["chat"], chunks[-1].usage, chunks[0].id)
    _assert_same(rows["responses"], final.usage, final.id)
    assert all(row["stream"] for row in rows.values())


async def test_usage_that_the_client_did_not_ask_for_is_in_the_row(
    server: str, running: Metering, client: AsyncOpenAI
) -> None:
    """The client sees the chunks that it sees without a proxy, none of them with usage."""
    async with AsyncOpenAI(base_url=f"{server}/v1", api_key="sk-of-the-tests") as direct:
        expected = [
            chunk async for chunk in await direct.chat.completions.create(**CHAT, stream=True)
        ]
    chunks = [chunk async for chunk in await client.chat.completions.create(**CHAT, stream=True)]
    assert [_of_the_model(chunk) for chunk in chunks] == [_of_the_model(one) for one in expected]
    assert "usage" not in json.dumps([chunk.model_dump(exclude_unset=True) for chunk in chunks])
    (row,) = await running.rows(1)
    assert (row["usage_source"], row["completion_tokens"]) == ("reported", 24)
    assert row["total_tokens"] == row["prompt_tokens"] + row["completion_tokens"]
    assert row["response_id"] == chunks[0].id


def _of_the_model(chunk: Any) -> dict[str, Any]:
    """Return what is the same at every call: no id, no time."""
    found: dict[str, Any] = chunk.model_dump(
        exclude={"id", "created", "timings"}, exclude_unset=True
    )
    return found


def _assert_same(row: dict[str, Any], usage: Any, response_id: str) -> None:
    """Check counts, model and id; nobody knows a price."""
    seen = usage.model_dump(exclude_unset=True)
    assert json.loads(row["raw_usage"]) == seen
    assert row["prompt_tokens"] == seen.get("prompt_tokens", seen.get("input_tokens")) > 0
    assert row["completion_tokens"] == seen.get("completion_tokens", seen.get("output_tokens")) > 0
    assert row["total_tokens"] == seen["total_tokens"]
    assert (row["model"], row["response_id"], row["user_id"]) == (NAME, response_id, "ada")
    assert (row["cost_usd"], row["unpriced_reason"]) == (None, "unknown_model")
