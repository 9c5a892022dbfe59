import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from proxy.core.usage import read_usage
from proxy.demo.upstream import FIELD, create_app

TOLD = {"prompt_tokens": 40, "cached_tokens": 8, "completion_tokens": 9, "reasoning_tokens": 3}


@pytest.fixture
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    """Return a client of the demo's upstream."""
    async with TestClient(TestServer(create_app())) as found:
        yield found


def _told(**more: object) -> Mapping[str, str]:
    return {FIELD: json.dumps({**TOLD, **more})}


async def test_a_chat_is_answered_with_the_counts_that_were_told(
    client: TestClient[Any, Any],
) -> None:
    """In the shape that the meter reads."""
    body = {"model": "gpt-5.4-mini", "messages": []}
    answer = await client.post("/v1/chat/completions", json=body, headers=_told())
    said = await answer.json()
    usage = read_usage(json.dumps(said["usage"]).encode())
    assert said["model"] == "gpt-5.4-mini"
    assert answer.headers["X-Request-Id"].startswith("req_")
    assert (usage.input_tokens, usage.output_tokens) == (40, 9)
    assert (usage.cache_read_input_tokens, usage.reasoning_output_tokens) == (8, 3)


@pytest.mark.parametrize("asked", [True, False], ids=["with usage", "without"])
async def test_a_stream_holds_usage_only_where_it_was_asked_for(
    client: TestClient[Any, Any], *, asked: bool
) -> None:
    """As the real one does."""
    body: dict[str, Any] = {"model": "gpt-5.4-mini", "messages": [], "stream": True}
    if asked:
        body["stream_options"] = {"include_usage": True}
    answer = await client.post("/v1/chat/completions", json=body, headers=_told())
    events = (await answer.text()).strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert ('"prompt_tokens":40' in events[-2]) is asked


async def test_a_response_searches_as_often_as_told(client: TestClient[Any, Any]) -> None:
    """Each search is an item of the output, from which its fee is counted."""
    body = {"model": "gpt-5.4", "input": "…", "tools": [{"type": "web_search"}]}
    answer = await client.post("/v1/responses", json=body, headers=_told(searches=2))
    kinds = [item["type"] for item in (await answer.json())["output"]]
    assert kinds == ["web_search_call", "web_search_call", "message"]


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/v1/embeddings", "application/json"),
        ("/v1/images/generations", "application/json"),
        ("/v1/audio/speech", "audio/mpeg"),
    ],
)
async def test_other_paths_answer_too(
    client: TestClient[Any, Any], path: str, content_type: str
) -> None:
    """Those that the homework helper calls."""
    answer = await client.post(path, json={"model": "m", "input": "…"}, headers=_told())
    assert (answer.status, answer.content_type) == (200, content_type)


async def test_an_error_has_the_shape_of_openais(client: TestClient[Any, Any]) -> None:
    """With its type, which the ledger keeps."""
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/embeddings"):
        answer = await client.post(path, json={"model": "m"}, headers=_told(status=429))
        assert answer.status == 429
        assert (await answer.json())["error"]["type"] == "rate_limit_error"
