"""A client that leaves, stalls or goes silent costs one call, and the upstream hears of it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.relay import Wire, roundtrip, running_worker
from tests.fakes.upstream import Call, Upstream, answering

GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
UPLOAD = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["uploading", "waiting", "streaming"])
async def test_a_client_that_leaves_cancels_its_call(tmp_path: Path, how: str, when: str) -> None:
    """The upstream sees it soon, and never takes half a request for a whole one."""
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def script(call: Call) -> None:
        arrived.set()
        if when == "streaming":
            while not gone.is_set():
                await call.send(b"3\r\nabc\r\n" if call.connection < 0 else CHUNKED)
                call.connection = -1
                if call.reader.at_eof():
                    break
                await asyncio.sleep(0.01)
        await call.gone()
        gone.set()

    async def head(call: Call) -> None:
        await script(call)

    async with (
        asyncio.timeout(10),
        Upstream(script, on_head=head if when == "uploading" else None) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(UPLOAD + b"x" * 1000 if when == "uploading" else GET)
        await arrived.wait()
        if when == "streaming":
            await wire.until(b"abc")
        if how == "reset":
            wire.reset()
        else:
            wire.writer.close()
        if when == "streaming":
            await worker.closed_once("client_disconnected")
            gone.set()
        else:
            await gone.wait()
        closing = await worker.closed_once("client_disconnected")
        assert closing.status == (200 if when == "streaming" else None)


async def test_a_client_that_leaves_before_there_is_a_connection(tmp_path: Path) -> None:
    """The connection is kept for the next call."""
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        wire.writer.write(GET)
        wire.reset()
        other = await Wire.to(worker.port)
        await other.send(GET)
        assert (await other.answer())[1] == b"{}"
        await other.close()
        outcomes = {closing.outcome for closing in await worker.wait_for_closings(1)}
        assert outcomes <= {"ok", "client_disconnected"}


@pytest.mark.parametrize("part", ["head", "body", "held body"])
async def test_a_client_that_goes_silent(tmp_path: Path, part: str) -> None:
    """A request that does not arrive in time is told as 408."""
    settings: dict[str, Any] = {
        "client_head_timeout_seconds": 0.3,
        "client_idle_timeout_seconds": 0.3,
    }
    request = {"head": GET[:-2], "body": UPLOAD + b"x"}.get(
        part, UPLOAD.replace(b"files", b"chat/completions") + b"{"
    )
    async with (
        asyncio.timeout(10),
        Upstream() as upstream,
        running_worker(tmp_path, upstream.url, **settings) as worker,
    ):
        answer = await roundtrip(worker.port, request)
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b'"type":"request_timeout"' in answer
        assert upstream.calls == []
        outcomes = [closing.outcome for closing in worker.closings()]
        assert outcomes == (["timeout"] if part == "body" else [])


async def test_a_client_that_does_not_take_its_answer(tmp_path: Path) -> None:
    """It is left after a while, and the upstream with it."""
    endless = answering(OK + b"Content-Length: 100000000\r\n\r\n" + b"x" * 50_000_000)
    async with (
        asyncio.timeout(10),
        Upstream(endless) as upstream,
        running_worker(tmp_path, upstream.url, client_idle_timeout_seconds=0.3) as worker,
    ):
        wire = await Wire.to(worker.port)
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001
        wire.writer.write(GET)
        await worker.closed_once("client_disconnected")
        wire.reset()


async def test_an_idle_client_is_closed(tmp_path: Path) -> None:
    """After the time that is set."""
    async with (
        asyncio.timeout(10),
        Upstream() as upstream,
        running_worker(tmp_path, upstream.url, client_idle_timeout_seconds=0.2) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        await wire.answer()
        assert await wire.rest() == b""
        await wire.close()
