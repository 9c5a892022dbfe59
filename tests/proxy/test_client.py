"""The client's side: requests that are too slow, refused, or never finished."""

import asyncio
from pathlib import Path

from tests.fakes.relay import Wire, running_worker
from tests.fakes.upstream import Upstream

GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
BAD = b"GET /v1/models HTTP/1.1\r\nHost : x\r\n\r\n"


async def test_a_refusal_reaches_a_client_that_goes_on_sending(tmp_path: Path) -> None:
    """Its connection is not reset before it has read the answer."""
    async with (
        asyncio.timeout(20),
        Upstream() as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(BAD)
        await wire.send(bytes(3_000_000))
        answer = await wire.rest()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"type":"invalid_request_framing"' in answer
        await wire.send(GET)
        await wire.close()
        assert upstream.calls == []


async def test_a_refused_client_is_not_listened_to_for_ever(tmp_path: Path) -> None:
    """Its connection ends after a pause of five seconds."""
    async with (
        asyncio.timeout(20),
        Upstream() as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(BAD)
        assert (await wire.rest()).startswith(b"HTTP/1.1 400 ")
        while worker.worker.parts.links:
            await asyncio.sleep(0.05)
        await wire.close()


async def test_what_is_refused_ends_the_connection_behind_earlier_answers(tmp_path: Path) -> None:
    """Pipelined: the first is answered, the second refused, the third never looked at."""
    async with (
        asyncio.timeout(20),
        Upstream() as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(GET + BAD + GET)
        answers = await wire.rest()
        await wire.close()
        assert answers.index(b"HTTP/1.1 200 ") < answers.index(b"HTTP/1.1 400 ")
        assert answers.count(b"HTTP/1.1 ") == 2
        assert len(upstream.calls) == 1


async def test_a_user_that_is_missing_ends_pipelined_calls_too(tmp_path: Path) -> None:
    """Nothing behind a refused request is taken for another one."""
    async with (
        asyncio.timeout(20),
        Upstream() as upstream,
        running_worker(tmp_path, upstream.url, require_user=True) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(GET + GET)
        answers = await wire.rest()
        await wire.close()
        assert answers.count(b'"type":"user_required"') == 1
        assert len(worker.closings()) == 1


async def test_links_are_forgotten_when_they_end(tmp_path: Path) -> None:
    """However they end."""
    async with (
        asyncio.timeout(20),
        Upstream() as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wires = [await Wire.to(worker.port) for _ in range(5)]
        for wire in wires:
            await wire.send(GET)
            await wire.answer()
        assert len(worker.worker.parts.links) == 5
        for wire in wires[:3]:
            await wire.close()
        for wire in wires[3:]:
            wire.reset()
        while worker.worker.parts.links:
            await asyncio.sleep(0.01)
