"""A worker as a whole: HTTPS, draining, and a disk that is full."""

import asyncio
import errno
import os
import ssl
from pathlib import Path

import pytest
import trustme

from proxy.core.model import Estimate
from tests.fakes.relay import Wire, running_worker
from tests.fakes.upstream import Call, Upstream, answering

GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


async def test_clients_may_speak_https(tmp_path: Path) -> None:
    """With keep-alive, streams and a close that is clean."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    for part in issued.cert_chain_pems:
        part.write_to_path(str(certificate), append=True)
    issued.private_key_pem.write_to_path(str(key))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    answer = CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"
    async with (
        asyncio.timeout(20),
        Upstream(answering(answer)) as upstream,
        running_worker(
            tmp_path, upstream.url, listen_tls_certificate=certificate, listen_tls_key=key
        ) as worker,
    ):
        wire = await Wire.to(worker.port, tls=context)
        for _ in range(2):
            await wire.send(GET)
            assert await wire.exactly(len(answer)) == answer
        await wire.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert (await wire.rest()).endswith(b"0\r\n\r\n")
        await wire.close()
        assert len(await worker.wait_for_closings(3)) == 3


async def test_a_stopping_worker_finishes_its_calls(tmp_path: Path) -> None:
    """Idle clients are let go, calls in flight end and say that the link does too."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(call: Call) -> None:
        arrived.set()
        await go.wait()
        await call.send(OK + b"Content-Length: 2\r\n\r\n{}")

    async with (
        asyncio.timeout(20),
        Upstream(slow) as upstream,
        running_worker(tmp_path, upstream.url, drain_seconds=10) as worker,
    ):
        idle, busy = await Wire.to(worker.port), await Wire.to(worker.port)
        await busy.send(GET)
        await arrived.wait()
        worker.worker.stop()
        assert await idle.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await Wire.to(worker.port)
        go.set()
        head, body = await busy.answer()
        assert b"\r\nConnection: close\r\n" in head
        assert body == b"{}"
        assert await busy.rest() == b""
        await idle.close()
        await busy.close()
        assert (await worker.closing()).outcome == "ok"


@pytest.mark.parametrize("start", [b"", CHUNKED + b"3\r\nabc\r\n", OK + b"\r\nabc"])
async def test_a_stopping_worker_breaks_off_what_does_not_end(tmp_path: Path, start: bytes) -> None:
    """After the time that is set; the row says so, and the client cannot take it for whole."""
    arrived = asyncio.Event()

    async def endless(call: Call) -> None:
        await call.send(start)
        arrived.set()
        await call.gone()

    async with (
        asyncio.timeout(20),
        Upstream(endless) as upstream,
        running_worker(tmp_path, upstream.url, drain_seconds=0.2) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        await arrived.wait()
        if start:
            await wire.until(b"abc")
        worker.worker.stop()
        with pytest.raises(ConnectionResetError):
            await wire.rest()
        await wire.close()
        assert (await worker.closing()).outcome == "interrupted"


CHAT = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
ASKED = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Say this is a test!"}]}'


async def test_what_a_stopping_worker_breaks_off_is_counted(tmp_path: Path) -> None:
    """As far as it had come; the worker waits a moment for that."""
    started = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    event = b'data: {"choices":[{"index":0,"delta":{"content":"This is a test."}}]}\n\n'

    async def answer(call: Call) -> None:
        if len(upstream.calls) == 1:  # so that the vocabulary is there for the other
            await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            return
        await call.send(started + event)
        await call.gone()

    async with (
        asyncio.timeout(60),
        Upstream(answer) as upstream,
        running_worker(tmp_path, upstream.url, drain_seconds=0.2) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(CHAT % (len(ASKED), ASKED))
        await wire.answer()
        await worker.closing()
        await wire.send(CHAT % (len(ASKED), ASKED))
        await wire.until(event)
        worker.worker.stop()
        closing = (await worker.wait_for_closings(2))[1]
        await wire.close()
    assert closing.outcome == "interrupted"
    assert closing.estimate == Estimate(input_tokens=13, output_tokens=5)


async def test_a_full_disk_fails_no_call(tmp_path: Path) -> None:
    """It is counted, and readiness says so."""
    full = os.open("/dev/full", os.O_WRONLY | os.O_NONBLOCK)
    async with (
        asyncio.timeout(20),
        Upstream() as upstream,
        running_worker(tmp_path, upstream.url, journal_sync_seconds=60) as worker,
    ):
        while not (tmp_path / "workers" / "w.json").exists():  # the first sync is over by then
            await asyncio.sleep(0.01)
        journal = worker.worker._journal  # noqa: SLF001
        segment = os.dup(journal._fd)  # noqa: SLF001
        os.dup2(full, journal._fd)  # noqa: SLF001
        wire = await Wire.to(worker.port)
        for _ in range(3):
            await wire.send(GET)
            assert (await wire.answer())[1] == b"{}"
        assert journal.failures > 0
        await wire.send(b"GET /_meter/readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        head, body = await wire.answer()
        await wire.close()
        assert head.startswith(b"HTTP/1.1 503 ")
        assert os.strerror(errno.ENOSPC).encode() in body
        os.dup2(segment, journal._fd)  # noqa: SLF001
        os.close(segment)
        os.close(full)
