"""Requests of many megabytes and many open streams: every byte arrives, and nobody waits."""

import asyncio
import base64
import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.fakes.relay import Wire, running_worker
from tests.fakes.upstream import Call, Upstream

STREAMS = 1000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"id":"c-1","model":"m-1","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
USAGE = (
    b'data: {"id":"c-1","model":"m-1","choices":[],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    """Return a chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def post(body: bytes) -> bytes:
    """Return a chat call."""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Meter-User: ada\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_an_image_of_twenty_megabytes_passes(tmp_path: Path, *, stream: bool) -> None:
    """In a chat call, plain or streamed; a streamed one gets the one option and nothing else."""
    image = base64.b64encode(await asyncio.to_thread(os.urandom, 15_000_000)).decode()
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}]
    asked: dict[str, object] = {"model": "m", "messages": [{"role": "user", "content": parts}]}
    if stream:
        asked["stream"] = True
    body = json.dumps(asked).encode()
    assert len(body) > 20_000_000
    async with (
        asyncio.timeout(60),
        Upstream() as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(post(body))
        head, _ = await wire.answer()
        assert head.startswith(b"HTTP/1.1 200 ")
        received = upstream.calls[0].body
        closing = await worker.closing()
        await wire.close()
    if stream:
        assert len(received) > len(body)
        assert json.loads(received) == {**asked, "stream_options": {"include_usage": True}}
    else:
        assert hashlib.sha256(received).digest() == hashlib.sha256(body).digest()
    assert closing.opening.user_id == "ada"
    assert closing.request_body_bytes == len(body)


@pytest.mark.parametrize("include_usage", [False, True], ids=["spliced", "as they come"])
async def test_a_thousand_streams_are_open_at_once(tmp_path: Path, *, include_usage: bool) -> None:
    """On one worker: all have begun before any ends, each is whole, and each is metered once."""
    begun, go = asyncio.Semaphore(0), asyncio.Event()

    async def script(call: Call) -> None:
        await call.send(HEAD + chunk(EVENT))
        begun.release()
        await go.wait()
        await call.send(chunk(USAGE) + chunk(DONE) + b"0\r\n\r\n")

    asked: dict[str, object] = {"model": "m", "stream": True, "messages": []}
    if include_usage:
        asked["stream_options"] = {"include_usage": True}
    request = post(json.dumps(asked).encode())
    async with (
        asyncio.timeout(120),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wires = []
        for _ in range(STREAMS):
            wires.append(await Wire.to(worker.port))
            await wires[-1].send(request)
        for wire in wires:
            await begun.acquire()
            await wire.until(EVENT)
        assert upstream.connections == STREAMS
        go.set()
        rests = {await wire.until(b"\r\n0\r\n\r\n") for wire in wires}
        closings = await worker.wait_for_closings(STREAMS)
        for wire in wires:
            await wire.close()
    last = chunk(USAGE) + chunk(DONE) if include_usage else chunk(DONE)
    assert {rest.removeprefix(b"\r\n") for rest in rests} == {last + b"0\r\n\r\n"}
    assert {(closing.outcome, closing.status) for closing in closings} == {("ok", 200)}
    assert {json.loads(closing.usage or b"{}")["total_tokens"] for closing in closings} == {12}
    assert len({closing.opening.event_id for closing in closings}) == STREAMS
