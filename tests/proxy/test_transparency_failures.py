"""What breaks on one side is seen on the other, at once, as what it is; each call has one row."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.relay import Wire, roundtrip, running_worker
from tests.fakes.upstream import Call, Script, Upstream, answer_plainly, answering

GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
UPLOAD = b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
STARTS = {
    "length": OK + b"Content-Length: 9\r\n\r\nabc",
    "chunked": CHUNKED,
    "in a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nabc",
    "until close": OK + b"\r\nabc",
}


async def drop(call: Call) -> None:
    """Close without an answer."""
    call.close()


async def reset(call: Call) -> None:
    """Reset without an answer."""
    call.reset()


async def wait(call: Call) -> None:
    """Answer nothing until the other side goes."""
    await call.gone()


@pytest.mark.parametrize("script", [drop, reset], ids=["closed", "reset"])
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "reused"])
async def test_an_upstream_that_drops_a_call(tmp_path: Path, script: object, *, used: bool) -> None:
    """It is told as 502, and the call is not made twice."""
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        if used:
            await wire.send(GET)
            await wire.answer()
        upstream.calls.clear()
        upstream.script = script  # type: ignore[assignment]
        await wire.send(GET)
        head, body = await wire.answer()
        assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert b"\r\nX-Meter-Error: upstream_disconnected\r\n" in head
        assert b'"type":"upstream_disconnected"' in body
        assert len(upstream.calls) == 1
        upstream.script = answer_plainly
        await wire.send(GET)
        assert (await wire.answer())[1] == b"{}"
        await wire.close()


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("end", [drop, reset], ids=["closed", "reset"])
async def test_an_answer_that_breaks_off_is_seen_to(
    tmp_path: Path, start: bytes, end: object
) -> None:
    """What came is passed on; a connection that ends cleanly must not make it look complete."""
    go = asyncio.Event()

    async def script(call: Call) -> None:
        await call.send(start)
        await go.wait()
        await end(call)  # type: ignore[operator]

    complete = b"\r\n\r\nabc" in start and b"Content" not in start and end is drop
    async with (
        asyncio.timeout(10),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        await wire.until(b"abc")
        go.set()
        if start == STARTS["until close"] and end is reset:
            with pytest.raises(ConnectionResetError):
                await wire.rest()
        else:
            assert await wire.rest() in (b"", b"\r\n")
        await wire.close()
        closing = await worker.closed_once("ok" if complete else "upstream_error")
        assert closing.status == 200


@pytest.mark.parametrize("start", [b"", CHUNKED], ids=["before the head", "in mid-body"])
async def test_an_upstream_that_goes_silent(tmp_path: Path, start: bytes) -> None:
    """It is told as 504, or broken off."""
    settings: dict[str, Any] = {"upstream_idle_timeout_seconds": 0.3}

    async def script(call: Call) -> None:
        await call.send(start)
        await call.gone()

    async with (
        asyncio.timeout(10),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url, **settings) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        if start:
            assert await wire.rest() == start
        else:
            head, body = await wire.answer()
            assert head.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
            assert b'"type":"upstream_timeout"' in body
        await wire.close()
        closing = await worker.closed_once("timeout")
        assert closing.error_type == "upstream_timeout"


async def test_an_upstream_that_is_not_there(tmp_path: Path) -> None:
    """It is told as 502 that names where nobody was."""
    async with running_worker(tmp_path, "http://127.0.0.1:9") as worker:
        answer = await roundtrip(
            worker.port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"cannot connect to 127.0.0.1:9" in answer
        assert (await worker.closed_once("upstream_error")).error_type == "upstream_unreachable"


@pytest.mark.parametrize("close", [True, False], ids=["and closes", "and reads on"])
async def test_an_answer_before_the_body_was_read(tmp_path: Path, *, close: bool) -> None:
    """A refused upload: the refusal reaches the client, and the rest of the body is nobody's."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
    if close:
        refusal = refusal.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    async def refuse(call: Call) -> None:
        await call.send(refusal)
        if close:
            call.close()
        else:
            await call.gone()

    async with (
        asyncio.timeout(20),
        Upstream(on_head=refuse, read_body=False) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        upstream.script = wait
        wire = await Wire.to(worker.port)
        await wire.send(UPLOAD + b"x" * 1_000_000)
        head, body = await wire.answer()
        assert (head[:13], body) == (b"HTTP/1.1 413 ", b"big")
        assert (b"Connection: close" in head) is close
        upstream.on_head, upstream.script = None, answer_plainly
        rest = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        await wire.send(rest + b"x" * (9_000_000 - len(rest)) + GET * (not close))
        assert (await wire.rest() if close else (await wire.answer())[1]) == b"{}"[
            : 2 * (not close)
        ]
        await wire.close()
        assert (await worker.wait_for_closings(1))[0].status == 413
        assert all(b"smuggled" not in call.head for call in upstream.calls)


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "invited"])
async def test_a_body_waits_for_the_upstreams_invitation(tmp_path: Path, *, refused: bool) -> None:
    """Expect: 100-continue is between client and upstream."""
    answer = b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno"
    invite = answering(answer if refused else b"HTTP/1.1 100 Continue\r\n\r\n")
    request = (
        b"POST /v1/files HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    )
    async with (
        asyncio.timeout(10),
        Upstream(on_head=invite, read_body=not refused) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        if refused:
            upstream.script = wait
        wire = await Wire.to(worker.port)
        await wire.send(request)
        if refused:
            assert await wire.answer() == (answer[:-2], b"no")
        else:
            assert await wire.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await wire.send(b"12345")
            assert (await wire.answer())[1] == b"{}"
            assert upstream.calls[0].body == b"12345"
            assert upstream.calls[0].header("expect") == b"100-continue"
        await wire.close()
        assert len(await worker.wait_for_closings(1)) == 1


@pytest.mark.parametrize(
    "script",
    [
        answer_plainly,
        answering(OK + b"\r\nabc", close=True),
        answering(CHUNKED, close=True),
        drop,
        wait,
    ],
    ids=["at the end", "until close", "broken off", "dropped", "timeout"],
)
async def test_a_fault_of_our_own_ends_one_call(tmp_path: Path, script: Script) -> None:
    """It is logged once, the call has its one closing, and the worker goes on."""
    lines: list[Mapping[str, object]] = []

    def log_call(facts: Mapping[str, object]) -> None:
        lines.append(facts)
        if len(lines) == 1:
            raise ValueError("a fault")

    settings: dict[str, Any] = {"log_call": log_call, "upstream_idle_timeout_seconds": 0.3}
    async with (
        asyncio.timeout(10),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url, faults=None, **settings) as worker,
    ):
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        with suppress(ConnectionResetError):
            assert len(await wire.rest()) < 300
        await wire.close()
        assert len(worker.closings()) == 1
        upstream.script = answer_plainly
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        assert (await wire.answer())[1] == b"{}"
        await wire.close()
        assert len(worker.closings()) == 2


async def test_a_fault_without_a_connection_ends_one_call(tmp_path: Path) -> None:
    """The client is not left waiting."""

    def log_call(facts: Mapping[str, object]) -> None:
        raise ValueError(facts)

    async with (
        asyncio.timeout(10),
        running_worker(tmp_path, "http://127.0.0.1:9", faults=1, log_call=log_call) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        with suppress(ConnectionResetError):
            assert await wire.rest() == b""
        await wire.close()
        assert (await worker.closed_once("upstream_error")).status == 502
