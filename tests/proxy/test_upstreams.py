"""Calls go to the upstream whose name their path begins with, and are the same calls there."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from proxy.core.model import Closing
from tests.fakes.relay import Running, Wire, roundtrip, running_worker
from tests.fakes.upstream import PLAIN, Call, Upstream, answering

ASKED = b'{"model":"m","stream":true,"messages":[]}'
KEY = "k-azure"


@asynccontextmanager
async def mounted(
    directory: Path, name: str = "azure", **members: Any
) -> AsyncIterator[tuple[Running, Upstream, Upstream]]:
    """Run a worker with an upstream at `/` and another one under a name."""
    async with asyncio.timeout(20), Upstream() as main, Upstream() as other:
        upstreams = {name: {"url": other.url + members.pop("base", ""), **members}}
        async with running_worker(directory, main.url, upstreams=upstreams) as worker:
            yield worker, main, other


def post(target: bytes, lines: bytes = b"", body: bytes = ASKED) -> bytes:
    """Return a request that ends its connection."""
    return (
        b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"%bContent-Length: %d\r\n\r\n%b" % (target, lines, len(body), body)
    )


DEPLOYED = b"/openai/deployments/my%2Fgpt/chat/completions?api-version=2026-05-01-preview&x=%7e"


@pytest.mark.parametrize("base", ["", "/base"])
@pytest.mark.parametrize(
    ("target", "operation"),
    [
        (DEPLOYED, "chat"),
        (b"/openai/v1/chat/completions", "chat"),
        (b"/v1//chat/completions", "chat"),
        (b"//v1/%63hat", "unknown"),
        (b"/../v1/models?", "models.create"),
    ],
)
async def test_the_name_is_taken_off_and_nothing_else(
    tmp_path: Path, target: bytes, operation: str, base: str
) -> None:
    """Target, head and attribution are those that the upstream would get without a mount."""
    lines = b"X-Meter-User: ada\r\nApi-Key: k\r\nX-Odd: \xff\r\n"
    body = b'{"model":"m","messages":[]}'
    async with mounted(tmp_path, base=base) as (worker, main, other):
        await roundtrip(worker.port, post(b"/azure" + target, lines, body))
        closing = await worker.closing()
        host = b"Host: 127.0.0.1:%d" % other.port
    (call,) = other.calls
    assert main.calls == []
    assert call.first_line == b"POST %b%b HTTP/1.1" % (base.encode(), target)
    assert call.lines == [
        host,
        b"Content-Type: application/json",
        b"Api-Key: k",
        b"X-Odd: \xff",
        b"Content-Length: %d" % len(body),
    ]
    assert call.body == body
    opening = closing.opening
    assert (opening.user_id, opening.operation_name) == ("ada", operation)
    assert (opening.mount, opening.upstream) == ("azure", "127.0.0.1")
    assert opening.api_path == target.partition(b"?")[0].decode()


@pytest.mark.parametrize(
    "target",
    [b"/azurex/v1/models", b"//azure/v1/models", b"/%61zure/v1/models", b"/v1/azure", b"/Azure/v1"],
)
async def test_what_is_no_name_goes_where_it_always_went(tmp_path: Path, target: bytes) -> None:
    """Byte by byte, to the upstream at `/`."""
    async with mounted(tmp_path) as (worker, main, other):
        await roundtrip(worker.port, post(target))
        assert (await worker.closing()).opening.mount is None
    assert main.calls[0].first_line == b"POST %b HTTP/1.1" % target
    assert other.calls == []


async def test_the_proxys_own_paths_stay_its_own(tmp_path: Path) -> None:
    """And under a mount they are the upstream's."""
    async with mounted(tmp_path) as (worker, _, other):
        request = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert b'"status":"ok"' in await roundtrip(worker.port, request % b"/_meter/healthz")
        assert (await roundtrip(worker.port, request % b"/azure/_meter/healthz")).endswith(b"{}")
    assert other.calls[0].first_line == b"GET /_meter/healthz HTTP/1.1"


async def test_one_connection_of_a_client_may_reach_all_of_them(tmp_path: Path) -> None:
    """Pipelined calls go where each says; every upstream keeps its own connections."""
    async with mounted(tmp_path) as (worker, main, other):
        wire = await Wire.to(worker.port)
        for target in (b"/v1/a", b"/azure/v1/b") * 3:
            await wire.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
        for _ in range(6):
            assert (await wire.answer())[1] == b"{}"
        await wire.close()
        assert (main.connections, other.connections) == (1, 1)
    assert {call.first_line for call in main.calls} == {b"GET /v1/a HTTP/1.1"}
    assert {call.first_line for call in other.calls} == {b"GET /v1/b HTTP/1.1"}


async def test_answers_come_back_as_they_are(tmp_path: Path) -> None:
    """Redirects and cookies too: a Location is the upstream's word, not rewritten."""
    answer = (
        b"HTTP/1.1 307 Elsewhere\r\nLocation: /openai/v1/x\r\nlocation: https://y/z\r\n"
        b"Set-Cookie: a=b; Path=/openai\r\nContent-Length: 2\r\n\r\n{}"
    )
    async with mounted(tmp_path) as (worker, _, other):
        other.script = answering(answer)
        wire = await Wire.to(worker.port)
        await wire.send(b"GET /azure/x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await wire.exactly(len(answer)) == answer
        await wire.close()


async def test_a_stream_is_asked_for_its_usage(tmp_path: Path) -> None:
    """As at `/`; whoever mounts an upstream that reports it unasked can leave that out."""
    async with mounted(tmp_path) as (worker, _, other):
        await roundtrip(worker.port, post(b"/azure" + DEPLOYED))
        assert other.calls[0].body == (
            b'{"stream_options":{"include_usage":true},"model":"m","stream":true,"messages":[]}'
        )
    async with mounted(tmp_path, "openrouter", ask_usage=False, base="/api") as (worker, _, other):
        await roundtrip(worker.port, post(b"/openrouter/v1/chat/completions"))
        assert other.calls[0].body == ASKED
        assert other.calls[0].header("accept-encoding") is None


async def test_a_stream_of_openrouter_passes_untouched_and_is_read(tmp_path: Path) -> None:
    """Comments while it waits, a last chunk with usage and what it took, unasked."""
    usage = (
        b'{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12,"cost":0.00014,'
        b'"cost_details":{"upstream_inference_cost":null}}'
    )
    events = (
        b": OPENROUTER PROCESSING\n\n" * 2
        + b'data: {"id":"gen-1","model":"openai/gpt-4o-mini","choices":[{"delta":{"content":"a"}}]}'
        + b'\n\ndata: {"id":"gen-1","model":"openai/gpt-4o-mini","choices":[],"usage":'
        + usage
        + b"}\n\ndata: [DONE]\n\n"
    )
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(events), events)
    )
    async with mounted(tmp_path, "openrouter", ask_usage=False, base="/api/v1") as (worker, _, up):
        up.script = answering(answer)
        got = await roundtrip(worker.port, post(b"/openrouter/chat/completions"))
        closing = await worker.closing()
    assert got == answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    assert up.calls[0].first_line == b"POST /api/v1/chat/completions HTTP/1.1"
    assert (closing.usage, closing.response_model) == (usage, "openai/gpt-4o-mini")
    assert closing.opening.operation_name == "chat"


async def test_the_owner_may_set_fields_for_one_upstream(tmp_path: Path) -> None:
    """What the client sent under these names stays behind, in trailers too; others see nothing."""
    fields = {"api-key": KEY, "Authorization": None, "HTTP-Referer": "https://a.example"}
    request = (
        b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k-client\r\nX-A: 1\r\nAPI-KEY: k\r\n"
        b"Connection: api-key\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\n{}\r\n0\r\nAuthorization: late\r\nX-B: 2\r\n\r\n"
    )
    async with mounted(tmp_path, headers=fields) as (worker, main, other):
        host = b"Host: 127.0.0.1:%d" % other.port
        wire = await Wire.to(worker.port)
        for target in (b"/azure/v1/x", b"/v1/x"):
            await wire.send(request % target)
            assert (await wire.answer())[1] == b"{}"
        await wire.close()
        assert KEY not in json.dumps([*worker.lines, repr(worker.logged)])
        assert KEY not in str(await worker.wait_for_closings(2))
    assert other.calls[0].lines == [
        host,
        b"X-A: 1",
        b"Transfer-Encoding: chunked",
        b"api-key: k-azure",
        b"HTTP-Referer: https://a.example",
    ]
    assert other.calls[0].raw_body == b"2\r\n{}\r\n0\r\nX-B: 2\r\n\r\n"
    assert KEY.encode() not in main.calls[0].head
    assert main.calls[0].header("authorization") == b"Bearer k-client"


async def test_a_websocket_goes_to_its_upstream(tmp_path: Path) -> None:
    """The upgrade is relayed, then bytes in both directions."""

    async def socket(call: Call) -> None:
        await call.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\n\x81\x02hi"
        )
        await call.send(await call.reader.readexactly(5))
        call.close()

    async with mounted(tmp_path, headers={"api-key": KEY}) as (worker, main, other):
        other.script = socket
        wire = await Wire.to(worker.port)
        await wire.send(
            b"GET /azure/openai/v1/realtime?model=gpt-realtime HTTP/1.1\r\nHost: x\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
        )
        head = await wire.head()
        assert head.startswith(b"HTTP/1.1 101 ")
        await wire.send(b"\x81\x03abc")
        assert await wire.rest() == b"\x81\x02hi\x81\x03abc"
        await wire.close()
        closing: Closing = (await worker.wait_for_closings(1))[-1]
    assert other.calls[0].first_line == (b"GET /openai/v1/realtime?model=gpt-realtime HTTP/1.1")
    assert other.calls[0].header("upgrade") == b"websocket"
    assert other.calls[0].header("api-key") == KEY.encode()
    assert closing.opening.mount == "azure"
    assert main.calls == []


async def test_each_upstream_has_trust_and_patience_of_its_own(tmp_path: Path) -> None:
    """One speaks TLS with an authority that only it is trusted for, and is given less time."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(pem)

    async def silent(call: Call) -> None:
        if b"/slow" in call.head:
            await call.gone()
        else:
            await call.send(PLAIN)

    async with (
        asyncio.timeout(20),
        Upstream() as main,
        Upstream(silent, tls=context) as other,
        running_worker(
            tmp_path / "data",
            main.url,
            upstreams={
                "mine": {"url": other.url, "ca_file": str(pem), "idle_timeout_seconds": 0.2},
                "strange": other.url,
                "gone": {"url": "http://127.0.0.1:9", "connect_timeout_seconds": 1},
            },
        ) as worker,
    ):
        request = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert (await roundtrip(worker.port, request % b"/mine/x")).endswith(b"{}")
        assert b" 504 " in await roundtrip(worker.port, request % b"/mine/slow")
        assert b'"upstream_unreachable"' in await roundtrip(worker.port, request % b"/strange/x")
        assert b"cannot connect to 127.0.0.1:9" in await roundtrip(worker.port, request % b"/gone/")
        assert (await roundtrip(worker.port, request % b"/x")).endswith(b"{}")
