"""Containers in which code runs, with the official client: their time is charged once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from tests.fakes.running import Metering, fetch, metering, until_rows
from tests.fakes.upstream import Call, Upstream

MINIMUM = {"1g": Decimal("0.0075"), "4g": Decimal("0.03")}  # five minutes
TOKENS = Decimal("0.0012")  # 1,000 in and 100 out of gpt-5.4-mini
BODY: Any = {"model": "gpt-5.4-mini", "input": "Sum it up."}
AUTO: Any = [{"type": "code_interpreter", "container": {"type": "auto"}}]
OWN: Any = [{"type": "code_interpreter", "container": "cntr_own"}]
SHELL: Any = [{"type": "shell", "environment": {"type": "container_auto"}}]
RUN = {"id": "ci_1", "type": "code_interpreter_call", "status": "completed", "code": "1"}
COMMAND = {
    "id": "sh_1",
    "type": "shell_call",
    "status": "completed",
    "call_id": "call_1",
    "action": {"commands": ["ls"]},
}


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Return a response of which the tool has run; `user` says in which container."""
    if asked["tools"][0]["type"] == "shell":
        where = {"type": "container_reference", "container_id": asked["user"]}
        ran: dict[str, Any] = {**COMMAND, "environment": where}
    else:
        ran = {**RUN, "container_id": asked["user"]}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "error": None,
        "model": "gpt-5.4-mini-2026-03-17",
        "service_tier": "default",
        "tools": asked["tools"],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "output": [ran],
        "usage": {
            "input_tokens": 1000,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 100,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 1100,
        },
    }


async def _platform(call: Call) -> None:
    asked = json.loads(call.body) if call.first_line.startswith(b"POST") else {}
    kind = "application/json"
    if call.first_line.split()[1] == b"/v1/containers":
        made = {"id": "cntr_own", "object": "container", "memory_limit": asked["memory_limit"]}
        text = json.dumps(made)
    elif asked.get("stream"):
        kind = "text/event-stream"
        over = {"type": "response.completed", "sequence_number": 1, "response": _answer(asked)}
        text = f"event: response.completed\ndata: {json.dumps(over)}\n\n"
    else:
        text = json.dumps(_answer(asked))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n\r\n"
    await call.send((head + text).encode())


@asynccontextmanager
async def _client(proxy: Metering, user: str) -> AsyncIterator[AsyncOpenAI]:
    headers = {"X-Meter-User": user}
    client = AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-x", default_headers=headers)
    async with client:
        yield client


async def _charges(dsn: str) -> dict[str, Decimal]:
    """Return who is charged for containers."""
    rows = await fetch(
        dsn,
        "SELECT user_id, sum(tool_cost_usd) AS fees, sum(cost_usd - tool_cost_usd) AS tokens,"
        " count(*) FILTER (WHERE operation_name = 'responses') AS answers"
        " FROM user_api_usage GROUP BY user_id",
    )
    for row in rows:
        assert row["tokens"] == row["answers"] * TOKENS
    return {row["user_id"]: row["fees"] for row in rows}


async def test_a_container_of_several_answers_is_charged_to_the_first(
    tmp_path: Path, database: str
) -> None:
    """Whether they were streamed, on another host, or after a restart."""
    async with asyncio.timeout(120), Upstream(_platform) as upstream:
        async with metering(tmp_path / "a", upstream.url, database) as here:
            async with _client(here, "ada") as ada:
                await ada.responses.create(**BODY, tools=AUTO, user="cntr_1")
                await ada.responses.create(**BODY, tools=AUTO, user="cntr_1")
            await until_rows(database, 2)
        async with (
            metering(tmp_path / "a", upstream.url, database) as again,
            metering(tmp_path / "b", upstream.url, database) as there,
            _client(again, "bob") as bob,
            _client(there, "eve") as eve,
        ):
            stream = await bob.responses.create(**BODY, tools=AUTO, user="cntr_1", stream=True)
            async for _ in stream:
                pass
            await eve.responses.create(**BODY, tools=SHELL, user="cntr_1")
            await eve.responses.create(**BODY, tools=SHELL, user="cntr_2")
            await until_rows(database, 5)
    assert await _charges(database) == {"ada": MINIMUM["1g"], "bob": 0, "eve": MINIMUM["1g"]}
    flags = await fetch(
        database, "SELECT usage_problem FROM user_api_usage WHERE tool_cost_usd > 0"
    )
    assert {row["usage_problem"] for row in flags} == {"container_time_estimated"}


async def test_a_container_that_was_made_beforehand_is_charged_to_its_maker(
    tmp_path: Path, database: str
) -> None:
    """By its size, which no answer tells that runs code in it; one made elsewhere has no price."""
    async with (
        asyncio.timeout(120),
        Upstream(_platform) as upstream,
        metering(tmp_path, upstream.url, database) as running,
        _client(running, "ada") as ada,
        _client(running, "bob") as bob,
    ):
        await ada.containers.create(name="sums", memory_limit="4g")
        await until_rows(database, 1)
        await bob.responses.create(**BODY, tools=OWN, user="cntr_own")
        await bob.responses.create(**BODY, tools=OWN, user="cntr_elsewhere")
        rows = await running.rows(3)
    (made,) = (row for row in rows if row["operation_name"] == "containers.create")
    (inside,) = (row for row in rows if row["tool_cost_usd"] == 0)
    (elsewhere,) = (row for row in rows if row["tool_cost_usd"] is None)
    assert (made["user_id"], made["usage_source"]) == ("ada", "estimated")
    assert (made["cost_usd"], made["tool_cost_usd"]) == (MINIMUM["4g"], MINIMUM["4g"])
    assert (inside["cost_usd"], inside["tool_cost_usd"]) == (TOKENS, 0)
    assert (elsewhere["cost_usd"], elsewhere["tool_cost_usd"]) == (TOKENS, None)
    assert elsewhere["unpriced_reason"] == "unknown_tool_fee"
