"""Clients that do not wait: what they have used has its row all the same, whoever stops or dies."""

import asyncio
import os
import signal
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from proxy import heartbeat
from tests.end_to_end.imitation import imitating
from tests.fakes.running import ledger_rows, metering, until_rows
from tests.fakes.serving import PATIENCE_SECONDS, Serving, serving
from tests.fakes.upstream import Call, Upstream

HEADERS = {"X-Meter-User": "ada", "X-Meter-Endpoint": "generate_hint"}
CHAT: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Why? 🌱"}]}
KEY = "sk-of-the-tests"
COST = Decimal("0.00000735")  # 15 fresh, 4 cached and 8 output tokens of gpt-4o-mini


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_does_not_wait_pays_what_it_used(
    tmp_path: Path, database: str, *, stream: bool
) -> None:
    """It times out or stops listening; the row has the exact usage all the same."""
    async with (
        imitating(pause=4.0) as imitation,
        metering(tmp_path, imitation.url, database, upstreams={"azure": imitation.url}) as running,
        AsyncOpenAI(
            base_url=f"{running.url}/azure/v1",
            api_key=KEY,
            default_headers=HEADERS,
            max_retries=0,
            timeout=60 if stream else 0.3,
        ) as client,
    ):
        if stream:
            answer = await client.chat.completions.create(**CHAT, stream=True)
            async for _ in answer:
                break
            await answer.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                await client.chat.completions.create(**CHAT)
        (row,) = await running.rows(1)
    assert (row["outcome"], row["usage_source"], row["stream"]) == (
        "client_disconnected",
        "reported",
        stream,
    )
    assert (row["completion_tokens"], row["cost_usd"]) == (8, COST)
    assert (row["upstream_name"], row["user_id"]) == ("azure", "ada")


@pytest.mark.parametrize(
    ("settings", "error_type"),
    [
        ({"on_disconnect": "cancel"}, None),
        ({"on_disconnect_max_seconds": 0.2}, "drain_seconds_exceeded"),
    ],
    ids=["cancelled", "beyond a bound"],
)
async def test_what_is_not_read_to_its_end_is_estimated(
    tmp_path: Path, database: str, settings: dict[str, Any], error_type: str | None
) -> None:
    """Nobody reports what was used; the row says that it was counted."""
    async with (
        imitating(pause=6.0) as imitation,
        metering(tmp_path, imitation.url, database, **settings) as running,
        AsyncOpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        answer = await client.chat.completions.create(**CHAT, stream=True)
        async for _ in answer:
            break
        await answer.close()
        (row,) = await running.rows(1)
    assert (row["outcome"], row["error_type"]) == ("client_disconnected", error_type)
    assert (row["usage_source"], row["raw_usage"]) == ("estimated", None)
    assert row["prompt_tokens"] > 0
    assert 0 < row["cost_usd"] <= COST


async def _silent(call: Call) -> None:
    await call.gone()


async def _hang_up(running: Serving) -> None:
    """Make a call, hang up, and wait until it is read for nobody and the recorder is there."""
    async with (
        aiohttp.ClientSession(running.proxy_url) as session,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        while not (running.directory / heartbeat.FILE_NAME).exists():
            await asyncio.sleep(0.05)
        with suppress(TimeoutError):
            patience = aiohttp.ClientTimeout(total=0.3)
            await session.post("/v1/chat/completions", json=CHAT, timeout=patience)
        while True:
            async with session.get("/_meter/readyz") as answer:
                if (await answer.json())["abandoned_calls"]:
                    return
            await asyncio.sleep(0.05)


async def test_a_stop_waits_for_what_is_read(open_directory: Path, database: str) -> None:
    """SIGTERM finds nobody connected any more; the row is exact when everything has stopped."""
    async with (
        imitating(pause=6.0) as imitation,
        serving(
            open_directory, imitation.url, "--database-url", database, "--drain-seconds", "60"
        ) as running,
    ):
        await _hang_up(running)
        assert await running.stop() == 0
    (row,) = await ledger_rows(database)
    assert (row["outcome"], row["error_type"]) == ("client_disconnected", None)
    assert (row["usage_source"], row["cost_usd"]) == ("reported", COST)


async def test_a_stop_does_not_wait_for_ever(open_directory: Path, database: str) -> None:
    """After METER_DRAIN_SECONDS the call is cancelled, and the row says why it knows no more."""
    async with (
        Upstream(_silent) as upstream,
        serving(
            open_directory, upstream.url, "--database-url", database, "--drain-seconds", "0.5"
        ) as running,
    ):
        await _hang_up(running)
        assert await running.stop() == 0
    (row,) = await ledger_rows(database)
    assert (row["outcome"], row["error_type"]) == ("client_disconnected", "proxy_stopped")
    assert row["raw_usage"] is None


async def test_a_worker_that_is_killed_while_it_reads(open_directory: Path, database: str) -> None:
    """The call has its row, as any other that was under way."""
    async with (
        Upstream(_silent) as upstream,
        serving(open_directory, upstream.url, "--database-url", database) as running,
    ):
        await _hang_up(running)
        os.kill(running.members()["worker-0"], signal.SIGKILL)
        await until_rows(database, 1)
    (row,) = await ledger_rows(database)
    assert (row["outcome"], row["raw_usage"]) == ("interrupted", None)
