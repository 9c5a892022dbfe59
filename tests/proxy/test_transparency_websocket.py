"""After a 101 both sides are a tunnel of bytes; a refusal is an ordinary answer."""

import asyncio
import os
from pathlib import Path

import pytest

from tests.fakes.relay import Wire, running_worker
from tests.fakes.upstream import Call, Upstream, answer_plainly, answering

FIELDS = (
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.none\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
)
UPGRADE = (
    b"GET /v1/realtime?model=m HTTP/1.1\r\nHost: x\r\nX-Meter-User: ada\r\n"
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" + FIELDS + b"\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nconnection: upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: realtime\r\n"
    b"X-Odd: \xff\r\n\r\n"
)
GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


async def echo(call: Call) -> None:
    """Switch, and say everything again that is said."""
    await call.send(SWITCHED)
    while data := await call.reader.read(65536):
        await call.send(data)
    call.close()


async def test_the_head_of_the_upgrade_arrives(tmp_path: Path) -> None:
    """Key, subprotocols and extensions are the client's own; attribution is not passed on."""
    async with Upstream(echo) as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(UPGRADE)
        assert await wire.head() == SWITCHED
        await wire.close()
        head = b"GET /v1/realtime?model=m HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % upstream.port
        assert upstream.calls[0].head == (
            head + FIELDS + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        closing = await worker.closing()
        assert (closing.outcome, closing.status, closing.opening.user_id) == ("ok", 101, "ada")


async def test_frames_of_any_size_pass_both_ways(tmp_path: Path) -> None:
    """Sixteen megabytes and single bytes, in order; those sent with the head as well."""
    async with (
        asyncio.timeout(30),
        Upstream(echo) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(UPGRADE + b"early")
        assert await wire.head() == SWITCHED
        assert await wire.exactly(5) == b"early"
        frame = await asyncio.to_thread(os.urandom, 16 << 20)
        wire.writer.write(frame)
        assert await wire.exactly(len(frame)) == frame
        for byte in frame[:50]:
            await wire.send(bytes([byte]))
            assert await wire.exactly(1) == bytes([byte])
        await wire.close()
        closing = await worker.closing()
        assert closing.request_body_bytes == closing.response_body_bytes == 55 + (16 << 20)


async def test_bytes_behind_the_101_are_the_tunnels(tmp_path: Path) -> None:
    """A server may speak first, in the same segment."""
    script = answering(SWITCHED + b"hello", b"again", close=True)
    async with Upstream(script) as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(UPGRADE)
        assert await wire.rest() == SWITCHED + b"helloagain"
        await wire.close()
        assert (await worker.closing()).outcome == "ok"


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_upstream_that_ends_the_tunnel(tmp_path: Path, how: str) -> None:
    """The client sees its last frame, and then the end."""
    go = asyncio.Event()

    async def script(call: Call) -> None:
        await call.send(SWITCHED + b"\x88\x02\x03\xe8")
        await go.wait()
        call.close() if how == "close" else call.reset()

    async with (
        asyncio.timeout(10),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(UPGRADE)
        assert await wire.head() == SWITCHED
        assert await wire.exactly(4) == b"\x88\x02\x03\xe8"
        go.set()
        if how == "close":
            assert await wire.rest() == b""
        else:
            with pytest.raises(ConnectionResetError):
                await wire.rest()
        await wire.close()
        closing = await worker.closing()
        assert closing.outcome == ("ok" if how == "close" else "upstream_error")


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_ends_the_tunnel(tmp_path: Path, how: str) -> None:
    """The upstream sees its last frame, and then the end."""
    said: list[bytes] = []
    gone = asyncio.Event()

    async def script(call: Call) -> None:
        await call.send(SWITCHED)
        try:
            while data := await call.reader.read(65536):
                said.append(data)
        finally:
            gone.set()

    async with (
        asyncio.timeout(10),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(UPGRADE)
        assert await wire.head() == SWITCHED
        await wire.send(b"\x88\x80mask")
        if how == "close":
            await wire.close()
            await gone.wait()
            assert b"".join(said) == b"\x88\x80mask"
        else:
            wire.reset()
            await gone.wait()
        assert (await worker.closing()).outcome == "ok"


@pytest.mark.parametrize("status", [200, 401, 403, 426, 429, 500])
async def test_a_refused_upgrade_is_an_ordinary_answer(tmp_path: Path, status: int) -> None:
    """With its body; what comes behind it are requests again, metered as such."""
    refusal = b"HTTP/1.1 %d No\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nno" % status
    async with (
        asyncio.timeout(10),
        Upstream(answering(refusal)) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(UPGRADE)
        assert await wire.exactly(len(refusal)) == refusal
        upstream.script = answer_plainly
        await wire.send(GET)
        assert (await wire.answer())[1] == b"{}"
        await wire.close()
        statuses = [closing.status for closing in await worker.wait_for_closings(2)]
        assert statuses == [status, 200]


@pytest.mark.parametrize(
    "request_",
    [
        UPGRADE.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        UPGRADE.replace(b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
        UPGRADE.replace(b"keep-alive, Upgrade", b"keep-alive"),
        UPGRADE.replace(b"GET", b"POST"),
    ],
    ids=["h2c", "two", "not nominated", "POST"],
)
async def test_nothing_else_is_switched_to(tmp_path: Path, request_: bytes) -> None:
    """The upgrade does not reach the upstream, and a 101 all the same is an error."""
    async with Upstream(echo) as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(request_)
        head, _ = await wire.answer()
        assert head.startswith(b"HTTP/1.1 502 ")
        await wire.close()
        assert b"pgrade" not in upstream.calls[0].head


async def test_a_tunnel_holds_the_faster_side_back(tmp_path: Path) -> None:
    """An upstream that does not read stops the client, not the memory of the proxy."""

    async def deaf(call: Call) -> None:
        await call.send(SWITCHED)
        call.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(20)

    async with (
        asyncio.timeout(10),
        Upstream(deaf) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(UPGRADE)
        await wire.head()
        wire.writer.write(bytes(100_000_000))
        await asyncio.sleep(0.5)
        before = wire.writer.transport.get_write_buffer_size()
        await asyncio.sleep(0.1)
        assert wire.writer.transport.get_write_buffer_size() == before > 50_000_000
        wire.reset()


async def test_a_tunnel_holds_the_upstream_back_for_a_client_that_does_not_read(
    tmp_path: Path,
) -> None:
    """The proxy keeps little of what it says, however much that is."""
    sent = 0

    async def flood(call: Call) -> None:
        nonlocal sent
        await call.send(SWITCHED)
        frame = b"\x82\x7f" + (1 << 20).to_bytes(8) + bytes(1 << 20)
        for _ in range(200):
            await call.send(frame)
            sent += 1

    async with (
        asyncio.timeout(20),
        Upstream(flood) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wire.send(UPGRADE)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.5)
        assert 0 < sent < 100
        wire.reset()
