"""Connections are kept, shared and closed as HTTP/1.1 says, on either side."""

import asyncio
from pathlib import Path

import pytest

from tests.fakes.relay import Running, Wire, roundtrip, running_worker
from tests.fakes.upstream import Call, Upstream, answer_plainly, answering

GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = {
    "length": OK + b"Content-Length: 2\r\n\r\n{}",
    "stream": CHUNKED + b"9\r\ndata: 1\n\n\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"0\r\nX-A: 1\r\n\r\n",
    "error": b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "1xx": b"HTTP/1.1 103 Early\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\n{}",
}


async def echo(call: Call) -> None:
    """Answer with the request line and the body."""
    body = call.first_line + b"|" + call.body
    await call.send(OK + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


def get(number: int) -> bytes:
    """Return a request of its own."""
    return b"GET /v1/%d HTTP/1.1\r\nHost: x\r\n\r\n" % number


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_both_connections_are_used_again(tmp_path: Path, answer: bytes) -> None:
    """After every kind of answer whose end can be told."""
    async with (
        asyncio.timeout(20),
        Upstream(answering(answer)) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        for _ in range(3):
            await wire.send(GET)
            assert await wire.exactly(len(answer)) == answer
        await wire.close()
        assert upstream.connections == 1
        assert len(await worker.wait_for_closings(3)) == 3


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    """Several in one segment, with and without bodies; one call at a time goes up."""
    posts = b"POST /v1/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    posts += b"POST /v1/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    posts += b"2\r\nde\r\n0\r\n\r\n"
    async with (
        asyncio.timeout(20),
        Upstream(echo) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(get(1) + posts + b"\r\n" + get(2) + get(3)[:20])
        bodies = [(await wire.answer())[1] for _ in range(4)]
        await wire.send(get(3)[20:])
        bodies.append((await wire.answer())[1])
        await wire.close()
        assert bodies == [
            b"GET /v1/1 HTTP/1.1|",
            b"POST /v1/a HTTP/1.1|abc",
            b"POST /v1/b HTTP/1.1|de",
            b"GET /v1/2 HTTP/1.1|",
            b"GET /v1/3 HTTP/1.1|",
        ]
        assert upstream.connections == 1


@pytest.mark.parametrize("count", [1, 2, 7])
async def test_a_half_closed_client_gets_all_its_answers(tmp_path: Path, count: int) -> None:
    """It has said all that it will, and still listens (RFC 9112 section 9.6)."""
    async with (
        asyncio.timeout(20),
        Upstream(echo) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(b"".join(get(number) for number in range(count)) + b"GET /unfinish")
        wire.writer.write_eof()
        answers = await wire.rest()
        await wire.close()
        assert answers.count(b"HTTP/1.1 200 OK") == count
        assert len(upstream.calls) == count
        assert {c.outcome for c in await worker.wait_for_closings(count)} == {"ok"}


async def test_a_stream_goes_on_for_a_half_closed_client(tmp_path: Path) -> None:
    """As long as it takes what is sent."""
    script = answering(CHUNKED, b"9\r\ndata: 1\n\n\r\n", b"0\r\n\r\n", pause=0.05)
    async with Upstream(script) as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        await wire.head()
        wire.writer.write_eof()
        assert await wire.rest() == b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"
        await wire.close()


async def test_a_client_may_ask_to_close(tmp_path: Path) -> None:
    """And is told so; the upstream's connection is not closed for it."""
    request = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        for _ in range(2):
            answer = await roundtrip(worker.port, request + get(1))
            assert answer.count(b"HTTP/1.1 ") == 1
            assert b"\r\nConnection: close\r\n" in answer
        assert upstream.connections == 1


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_client_of_http_1_0(tmp_path: Path, *, keeps: bool) -> None:
    """It is kept only if it asks for that, and then it is told."""
    request = b"GET /v1/models HTTP/1.0\r\n" + b"Connection: keep-alive\r\n" * keeps + b"\r\n"
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(request)
        head, _ = await wire.answer()
        assert (b"Connection: keep-alive" in head) is keeps
        assert (b"Connection: close" in head) is not keeps
        if keeps:
            await wire.send(request.replace(b"Connection: keep-alive\r\n", b""))
        assert (b"Connection: close" in await wire.rest()) is keeps
        await wire.close()


@pytest.mark.parametrize("blank", [b"\r\n", b"\r\n\r\n", b"\r\n" * 5000])
async def test_blank_lines_before_a_request_are_skipped(tmp_path: Path, blank: bytes) -> None:
    """RFC 9112 section 2.2."""
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        for part in (blank + GET, blank[:-1], blank[-1:] + GET):
            await wire.send(part)
            await asyncio.sleep(0.005)
        assert [(await wire.answer())[1] for _ in range(2)] == [b"{}", b"{}"]
        await wire.close()


async def test_a_request_byte_by_byte(tmp_path: Path) -> None:
    """Cut in the head, in a chunk's size, in its data."""
    request = b"POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    request += b"4\r\n\r\n\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n"
    async with Upstream(echo) as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        for offset in range(len(request)):
            await wire.send(request[offset : offset + 1])
            await asyncio.sleep(0)
        assert (await wire.answer())[1] == b"POST /v1/x HTTP/1.1|\r\n\r\nx"
        await wire.close()


@pytest.mark.parametrize("line", [b"Connection: close\r\n", b""], ids=["close", "1.0"])
async def test_an_upstream_may_close(tmp_path: Path, line: bytes) -> None:
    """The client's connection stays; the next call makes another one."""
    version = b"HTTP/1.1" if line else b"HTTP/1.0"
    script = answering(version + b" 200 OK\r\n" + line + b"Content-Length: 2\r\n\r\n{}")
    async with Upstream(script) as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        for _ in range(2):
            await wire.send(GET)
            head, body = await wire.answer()
            assert body == b"{}"
            assert b"Connection: close" not in head
            assert (b"Connection: keep-alive" in head) is (line == b"")
        await wire.close()
        assert upstream.connections == 2


async def test_three_hundred_calls_at_once_do_not_mix(tmp_path: Path) -> None:
    """Each client gets the answer to its own question, and each call a row of its own."""
    arrived = asyncio.Semaphore(0)
    go = asyncio.Event()

    async def together(call: Call) -> None:
        arrived.release()
        await go.wait()
        for part in (CHUNKED, b"%x\r\n%b\r\n" % (len(call.body), call.body), b"0\r\n\r\n"):
            await call.send(part)
            await asyncio.sleep(0)

    async def ask(worker: Running, number: int) -> None:
        body = b"question %03d" % number
        request = b"POST /v1/%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" % number
        answer = await roundtrip(
            worker.port, request + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        assert answer.endswith(b"\r\n\r\nc\r\n%b\r\n0\r\n\r\n" % body)

    async with (
        asyncio.timeout(60),
        Upstream(together) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
        asyncio.TaskGroup() as tasks,
    ):
        for number in range(300):
            tasks.create_task(ask(worker, number))
        for _ in range(300):
            await arrived.acquire()
        assert upstream.connections == 300
        go.set()
    assert sorted({c.opening.api_path for c in worker.closings()}) == sorted(
        f"/v1/{number}" for number in range(300)
    )
    assert len(worker.closings()) == 300


async def test_a_connection_that_an_idle_upstream_closed_is_not_used(tmp_path: Path) -> None:
    """The next call gets a new one, and its client notices nothing."""
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        await wire.answer()
        upstream.calls[0].close()
        await asyncio.sleep(0.05)
        await wire.send(GET)
        assert (await wire.answer())[0].startswith(OK)
        await wire.close()
        assert upstream.connections == 2


async def test_a_client_that_does_not_read_is_not_served_further(tmp_path: Path) -> None:
    """It sends ten thousand questions and takes no answer: nothing piles up."""
    big = OK + b"Content-Length: 65536\r\n\r\n" + b"x" * 65_536
    async with Upstream(answering(big)) as upstream, running_worker(tmp_path, upstream.url) as w:
        wire = await Wire.to(w.port)
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001
        wire.writer.write(GET * 10_000)
        await asyncio.sleep(0.3)
        served = len(upstream.calls)
        assert served < 400
        await asyncio.sleep(0.1)
        assert len(upstream.calls) == served
        wire.reset()
        upstream.script = answer_plainly
