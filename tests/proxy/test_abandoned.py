"""Whoever hangs up has still used what was used: the answer is read to its end, within bounds."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.relay import Running, Wire, running_worker
from tests.fakes.upstream import Call, Upstream

OK = b"HTTP/1.1 200 OK\r\n"
USAGE = b'{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}'
WHOLE = b'{"id":"c-1","model":"m-1","choices":[],"usage":' + USAGE + b"}"
JSON = OK + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(WHOLE)
STREAM = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ERROR = (
    b"HTTP/1.1 500 Oh\r\nContent-Type: application/json\r\nContent-Length: 35\r\n\r\n"
    b'{"error":{"type":"server_failure"}}'
)
ASKED = b'{"model":"m","messages":[]}'
ASKED_STREAM = b'{"model":"m","stream":true,"messages":[]}'


def post(body: bytes, lines: bytes = b"", path: bytes = b"/v1/chat/completions") -> bytes:
    """Return a request."""
    return (
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%b"
        b"Content-Length: %d\r\n\r\n%b" % (path, lines, len(body), body)
    )


def chunk(data: bytes) -> bytes:
    """Return a chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(data: bytes) -> bytes:
    """Return an event in a chunk of its own."""
    return chunk(b"data: " + data + b"\n\n")


END_OF_STREAM = event(b'{"model":"m-1","choices":[],"usage":' + USAGE + b"}") + event(b"[DONE]")


class Slow:
    """An upstream that answers in two parts, and tells when it is asked and when it is left."""

    def __init__(self, first: bytes, rest: bytes) -> None:
        self.first, self.rest = first, rest
        self.asked, self.go, self.gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, call: Call) -> None:
        """Send the first part, wait, send the rest."""
        await call.send(self.first)
        self.asked.set()
        told = asyncio.ensure_future(self.go.wait())
        left = asyncio.ensure_future(call.gone())
        await asyncio.wait([told, left], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if left.done():
            self.gone.set()
            return
        left.cancel()
        await asyncio.gather(told, left, return_exceptions=True)
        await call.send(self.rest)
        if b"\r\nConnection: close\r\n" in self.first:
            call.close()


@asynccontextmanager
async def left_alone(
    directory: Path, slow: Slow, request: bytes, *, how: str = "reset", **settings: Any
) -> AsyncIterator[Running]:
    """Make a call whose client hangs up as soon as the first part is there."""
    async with (
        asyncio.timeout(20),
        Upstream(slow) as upstream,
        running_worker(directory, upstream.url, **settings) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(request)
        await slow.asked.wait()
        if slow.first:
            await wire.until(b"\r\n\r\n")
        if how == "reset":
            wire.reset()
        else:
            wire.writer.close()
        try:
            yield worker
        finally:
            slow.go.set()


async def until_left(worker: Running) -> None:
    """Wait until a call is read for nobody."""
    while not len(worker.worker.parts.abandoned):
        await asyncio.sleep(0.01)


CASES = {
    "plain, before the first byte": (post(ASKED), b"", JSON + WHOLE),
    "plain, in mid-answer": (post(ASKED), JSON + WHOLE[:9], WHOLE[9:]),
    "stream, before the first byte": (
        post(ASKED_STREAM),
        b"",
        STREAM + END_OF_STREAM + b"0\r\n\r\n",
    ),
    "stream, in mid-event": (
        post(ASKED_STREAM),
        STREAM + event(b'{"choices":[{"delta":{"content":"a"}}]}') + END_OF_STREAM[:20],
        END_OF_STREAM[20:] + b"0\r\n\r\n",
    ),
    "until the end of the connection": (
        post(ASKED, b"Connection: close\r\n"),
        OK + b"Content-Type: application/json\r\nConnection: close\r\n\r\n" + WHOLE[:4],
        WHOLE[4:],
    ),
    "compressed": (
        post(ASKED),
        OK + b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
        chunk(gzip.compress(WHOLE)) + b"0\r\n\r\n",
    ),
    "behind a 1xx": (
        post(ASKED),
        b"",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" + JSON + WHOLE,
    ),
}


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize(("request_", "first", "rest"), CASES.values(), ids=CASES)
async def test_the_answer_is_read_to_its_end(
    tmp_path: Path, request_: bytes, first: bytes, rest: bytes, how: str
) -> None:
    """The row has the exact usage, and says that the client had left, as far as that is seen."""
    slow = Slow(first, rest)
    async with left_alone(tmp_path, slow, request_, how=how) as worker:
        seen = how == "reset" or not first  # else when something is written behind the last bytes
        if seen:
            await until_left(worker)
        assert worker.closings() == []
        slow.go.set()
        closing = await worker.closed_once("client_disconnected" if seen else "ok")
    assert (closing.status, closing.error_type) == (200, None)
    assert closing.usage == USAGE
    assert closing.response_model == "m-1"
    assert (closing.usage_problem, closing.response_body_bytes) == (None, body_bytes(first + rest))


def body_bytes(answer: bytes) -> int:
    """Return how long the body of an answer is, without its framing."""
    head, _, rest = answer.removeprefix(b"HTTP/1.1 103 Early Hints\r\n\r\n").partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return len(rest)
    total = 0
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        total += int(size, 16)
        rest = rest[int(size, 16) + 2 :]
    return total


async def test_a_finished_connection_is_kept(tmp_path: Path) -> None:
    """The next call goes over it."""
    slow = Slow(b"", JSON + WHOLE)
    async with Upstream(slow) as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        await wire.send(post(ASKED))
        await slow.asked.wait()
        wire.reset()
        await until_left(worker)
        slow.go.set()
        await worker.closing()
        other = await Wire.to(worker.port)
        await other.send(post(ASKED))
        assert (await other.answer())[1] == WHOLE
        await other.close()
        assert upstream.connections == 1


async def test_a_pipelined_request_dies_with_its_client(tmp_path: Path) -> None:
    """The one under way is read to its end; the one that waits was never sent."""
    slow = Slow(b"", JSON + WHOLE)
    async with left_alone(tmp_path, slow, post(ASKED) + post(ASKED_STREAM)) as worker:
        await until_left(worker)
        slow.go.set()
        closing = await worker.closed_once("client_disconnected")
    assert closing.usage == USAGE
    assert len(worker.openings()) == 1


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/responses"])
async def test_half_a_request_is_not_read_for(tmp_path: Path, path: bytes) -> None:
    """A held one was never sent and has no row; one that streams up is cancelled."""
    arrived = asyncio.Event()

    async def head(call: Call) -> None:
        arrived.set()
        await call.gone()

    async with (
        asyncio.timeout(20),
        Upstream(on_head=head) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(post(ASKED, path=path)[:-1])
        if path == b"/v1/responses":
            await arrived.wait()
        wire.reset()
        if path == b"/v1/responses":
            await worker.closed_once("client_disconnected")
        while worker.worker.parts.links:
            await asyncio.sleep(0.01)
        assert len(worker.openings()) == (path == b"/v1/responses")
        assert len(worker.worker.parts.abandoned) == 0
        assert upstream.calls == []


async def test_a_client_that_takes_nothing_is_left_alone(tmp_path: Path) -> None:
    """Its answer is longer than what is buffered for it; it is read to its end for its usage."""
    big = b'{"model":"m-1","x":"' + b"x" * 20_000_000 + b'","usage":' + USAGE + b"}"
    head = OK + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(big)

    async def script(call: Call) -> None:
        await call.send(head + big)

    async with (
        asyncio.timeout(20),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url, client_idle_timeout_seconds=0.3) as worker,
    ):
        wire = await Wire.to(worker.port)
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001
        wire.writer.write(post(ASKED))
        closing = await worker.closed_once("client_disconnected")
        wire.reset()
    assert (closing.usage, closing.response_body_bytes) == (USAGE, len(big))


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({"on_disconnect": "cancel"}, b""),
        ({"on_disconnect_endpoints": '{"hint":"cancel"}'}, b"X-Meter-Endpoint: hint\r\n"),
    ],
    ids=["all", "by endpoint"],
)
async def test_a_call_may_be_cancelled_instead(
    tmp_path: Path, settings: dict[str, Any], lines: bytes
) -> None:
    """The upstream hears of it at once."""
    slow = Slow(STREAM, b"")
    async with left_alone(tmp_path, slow, post(ASKED_STREAM, lines), **settings) as worker:
        await slow.gone.wait()
        closing = await worker.closed_once("client_disconnected")
    assert (closing.usage, closing.error_type) == (None, None)


async def test_other_endpoints_are_not_cancelled(tmp_path: Path) -> None:
    """A choice for one is none for the others."""
    slow = Slow(b"", JSON + WHOLE)
    settings: dict[str, Any] = {
        "on_disconnect": "cancel",
        "on_disconnect_endpoints": {"hint": "drain"},
    }
    request = post(ASKED, b"X-Meter-Endpoint: hint\r\n")
    async with left_alone(tmp_path, slow, request, **settings) as worker:
        await until_left(worker)
        slow.go.set()
        assert (await worker.closed_once("client_disconnected")).usage == USAGE


@pytest.mark.parametrize(
    ("bound", "error_type"),
    [
        ({"on_disconnect_max_seconds": 0.2}, "drain_seconds_exceeded"),
        ({"on_disconnect_max_bytes": 1024}, "drain_bytes_exceeded"),
        ({"on_disconnect_max_calls": 0}, "drain_calls_exceeded"),
        ({"upstream_idle_timeout_seconds": 0.2}, "upstream_timeout"),
        ({"drain_seconds": 0.2}, "proxy_stopped"),
    ],
    ids=["time", "bytes", "calls", "silence", "stop"],
)
async def test_reading_for_nobody_has_bounds(
    tmp_path: Path, bound: dict[str, Any], error_type: str
) -> None:
    """Beyond one the call is cancelled, and the row says which it was."""
    slow = Slow(STREAM, chunk(b": x\n\n" * 1000))
    async with left_alone(tmp_path, slow, post(ASKED_STREAM), **bound) as worker:
        if error_type == "drain_bytes_exceeded":
            await until_left(worker)
            slow.go.set()
        if error_type == "proxy_stopped":
            await until_left(worker)
            worker.worker.stop()
        closing = await worker.closed_once("client_disconnected")
        assert worker.worker.parts.abandoned.cut == 1
        assert not len(worker.worker.parts.abandoned)
    assert (closing.status, closing.usage, closing.error_type) == (200, None, error_type)


async def test_a_stopping_worker_waits_for_what_is_read(tmp_path: Path) -> None:
    """As it does for clients that are still there."""
    slow = Slow(b"", JSON + WHOLE)
    async with left_alone(tmp_path, slow, post(ASKED), drain_seconds=10) as worker:
        await until_left(worker)
        worker.worker.stop()
        await asyncio.sleep(0.1)
        assert worker.closings() == []
        slow.go.set()
        assert (await worker.closed_once("client_disconnected")).usage == USAGE


@pytest.mark.parametrize(
    ("rest", "status", "error_type"),
    [
        (b"", None, "upstream_disconnected"),
        (b"nonsense\r\n\r\n", None, "upstream_protocol_error"),
        (ERROR, 500, "server_failure"),
    ],
    ids=["gone", "no HTTP", "an error"],
)
async def test_an_answer_that_fails_for_nobody(
    tmp_path: Path, rest: bytes, status: int | None, error_type: str | None
) -> None:
    """The row says so; it is closed once."""
    slow = Slow(b"", rest)

    async def script(call: Call) -> None:
        await slow(call)
        if not rest:
            call.reset()

    async with (
        asyncio.timeout(20),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(post(ASKED))
        await slow.asked.wait()
        wire.reset()
        await until_left(worker)
        slow.go.set()
        closing = await worker.closed_once("client_disconnected")
    assert (closing.status, closing.error_type, closing.usage) == (status, error_type, None)


async def test_a_switch_for_nobody_is_cancelled(tmp_path: Path) -> None:
    """There is nobody left to talk to."""
    slow = Slow(b"", b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n")
    request = post(ASKED, b"Upgrade: websocket\r\nConnection: upgrade\r\n")
    async with left_alone(tmp_path, slow, request) as worker:
        await until_left(worker)
        slow.go.set()
        closing = await worker.closed_once("client_disconnected")
    assert closing.error_type == "upstream_protocol_error"


async def test_health_and_metrics_count_what_is_read(tmp_path: Path) -> None:
    """While it is under way, and when it is over."""
    slow = Slow(b"", JSON + WHOLE)
    async with left_alone(tmp_path, slow, post(ASKED)) as worker:
        await until_left(worker)
        wire = await Wire.to(worker.port)
        await wire.send(b"GET /_meter/readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert json.loads((await wire.answer())[1])["abandoned_calls"] == 1
        await wire.send(b"GET /_meter/metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        lines = (await wire.answer())[1].splitlines()
        assert b'openai_meter_abandoned_calls{worker="w"} 1.0' in lines
        assert b'openai_meter_calls_in_flight{worker="w"} 1.0' in lines
        slow.go.set()
        await worker.closing()
        await wire.send(b"GET /_meter/metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        lines = (await wire.answer())[1].splitlines()
        await wire.close()
    assert b'openai_meter_abandoned_calls{worker="w"} 0.0' in lines
    assert b'openai_meter_abandoned_calls_completed_total{worker="w"} 1.0' in lines
    assert b'openai_meter_abandoned_calls_cut_total{worker="w"} 0.0' in lines


HELLO = b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hello world"}]}'
SAID = event(b'{"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"one two three"}}]}')


@pytest.mark.parametrize(
    "settings",
    [
        {"on_disconnect": "cancel"},
        {"on_disconnect_max_seconds": 0.2},
        {"on_disconnect_max_bytes": 1024},
        {"on_disconnect_max_calls": 0},
    ],
    ids=["cancelled", "time", "bytes", "calls"],
)
async def test_what_is_not_read_to_its_end_is_estimated(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """From the request, and from what had come."""
    slow = Slow(STREAM + SAID, chunk(b": x\n\n" * 1000))
    async with left_alone(tmp_path, slow, post(HELLO), **settings) as worker:
        if "on_disconnect_max_bytes" in settings:
            await until_left(worker)
            slow.go.set()
        closing = await worker.closed_once("client_disconnected")
    assert closing.usage is None
    assert closing.estimate is not None
    assert (closing.estimate.input_tokens, closing.estimate.output_tokens) == (9, 3)


async def test_what_was_asked_before_anything_came_is_estimated_by_its_prompt(
    tmp_path: Path,
) -> None:
    """What was generated meanwhile nobody knows: unknown, not 0."""
    slow = Slow(b"", b"")
    async with left_alone(tmp_path, slow, post(HELLO), on_disconnect="cancel") as worker:
        await slow.gone.wait()
        closing = await worker.closed_once("client_disconnected")
    assert closing.estimate is not None
    assert (closing.estimate.input_tokens, closing.estimate.output_tokens) == (9, None)
    assert closing.estimate.note == "answer_not_seen"
