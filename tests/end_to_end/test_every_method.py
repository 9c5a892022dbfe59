"""Every method of the official Python client goes through the proxy: unchanged, and with one row.

What a test of its own looks at more closely: chat, completions, responses, embeddings, models and
files in test_openai_python.py; images and audio in test_units.py; sessions over WebSocket (each
`connect`) in test_sessions.py; what is billed when it is done in test_deferred.py; what is polled,
streamed and uploaded by conveniences of the client ends in the methods called here.
"""

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from proxy.core.operations import operation_of
from proxy.core.registry import Operation
from proxy.core.surfaces import Verdict, verdict_of
from proxy.core.verdicts import UNPRICED
from proxy.pricefile import load_price_book
from proxy.resources import resource
from tests.end_to_end.every_method import Received, call_everything
from tests.fakes.running import metering
from tests.fakes.upstream import Call, Upstream

DATA = Path(__file__).parents[1] / "data" / "openai_paths_2026-11-22.tsv"
BOOK = load_price_book(resource("pricing.yaml"))
USAGE = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
VECTOR = {"object": "embedding", "index": 0, "embedding": [1.0]}
# Fields that are a connection's own, and those that the client makes up for each call.
OF_THE_CALL = (b"host:", b"connection:", b"idempotency-key:", b"content-type: multipart/")
_ID = re.compile(r"/(?:\w+_id|id|version|gpt-4o-mini)(?=/|$)")
_BOUNDARY = re.compile(rb"boundary=(\S+)")


def _target(call: Call) -> tuple[str, str]:
    """Return method and path, without the query."""
    method, target, _ = call.first_line.decode().split(" ")
    return method, target.partition("?")[0]


def _operation(call: Call) -> Operation:
    return operation_of(*_target(call))


async def _answer(call: Call) -> None:
    """Answer with an object that is not done yet, a list and usage at once; or with bytes."""
    operation = _operation(call)
    said: dict[str, Any] = {"id": "obj_1", "object": "thing", "status": "queued"}
    if not operation.makes:
        said["data"] = []
    if operation.name == "embeddings":
        said["data"] = [VECTOR]
    if operation.reads_usage:
        said |= {"status": "completed", "usage": USAGE}
    kind, body = b"application/json", json.dumps(said).encode()
    if operation.name.endswith("content") and operation.api_type != "vector_stores":
        kind, body = b"application/octet-stream", bytes(range(256))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    await call.send(head % (kind, len(body)) + body)


def _asked(call: Call) -> tuple[bytes, list[bytes], bytes]:
    """Return what must be the same however the call came: all but what is made up for each."""
    boundary = _BOUNDARY.search(call.head)
    lines = [line for line in call.lines if not line.lower().startswith(OF_THE_CALL)]
    body = call.raw_body.replace(boundary[1], b"boundary") if boundary else call.raw_body
    return call.first_line, lines, body


def _published(names: list[str], calls: list[Call]) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for name, call in zip(names, calls, strict=True):
        method, path = _target(call)
        found.setdefault((method, _ID.sub("/*", path.removeprefix("/v1"))), set()).add(name)
    return found


def _assert_decided(row: dict[str, Any]) -> None:
    """Check that a row says what is decided of its kind."""
    operation = operation_of(row["_method"], row["api_path"])
    verdict = verdict_of(operation, BOOK)
    known = (row["usage_source"], row["cost_usd"], row["usage_problem"])
    what = (operation.name, verdict, known)
    if verdict is Verdict.CHARGED:
        assert (known[0], json.loads(row["raw_usage"])) == ("reported", USAGE), what
        assert row["cost_usd"] is not None or row["unpriced_reason"] is not None, what
    elif verdict is Verdict.DEFERRED:
        assert known == ("unavailable", None, "usage_deferred"), what
    elif verdict is Verdict.FREE:
        assert (known[:2], row["price_id"]) == (("unavailable", 0), "free"), what
    else:
        assert verdict is Verdict.UNPRICED, what
        word = UNPRICED.get(operation.name, ("media_passes_elsewhere",))[0]
        assert known == ("unavailable", None, word), what


async def test_every_method_of_the_client_passes_unchanged_and_is_decided(
    tmp_path: Path, database: str
) -> None:
    """The upstream gets and the client sees the same as without the proxy; rows say the verdict."""
    async with Upstream(_answer) as upstream:
        names, expected = await asyncio.to_thread(call_everything, upstream.url)
        direct, upstream.calls = upstream.calls, []
        async with metering(tmp_path, upstream.url, database) as proxy:
            attribution = {"X-Meter-User": "ada", "X-Meter-Endpoint": "everything"}
            _, received = await asyncio.to_thread(call_everything, proxy.url, **attribution)
            rows = await proxy.rows(len(names))
    _assert_same(names, direct, upstream.calls, expected, received)
    asked = [(*_target(call), _operation(call).name) for call in direct]
    assert Counter((row["api_path"], row["operation_name"]) for row in rows) == Counter(
        (path, name) for _, path, name in asked
    )
    assert {row["user_id"] for row in rows} == {"ada"}
    methods = {(path, name): method for method, path, name in asked}
    for row in rows:
        _assert_decided(row | {"_method": methods[row["api_path"], row["operation_name"]]})
    lines = [line.split("\t") for line in DATA.read_text().splitlines() if line[0] != "#"]
    listed = {(method, path): set(who.split(", ")) for method, path, who in lines}
    published = _published(names, direct)
    assert published == {call: listed[call] for call in published}


def _assert_same(
    names: list[str],
    direct: list[Call],
    relayed: list[Call],
    expected: list[Received],
    received: list[Received],
) -> None:
    assert len(names) == len(direct) == len(relayed)
    for name, one, other in zip(names, direct, relayed, strict=True):
        assert _asked(other) == _asked(one), name
    for name, seen, wanted in zip(names, received, expected, strict=True):
        assert seen == wanted, name
