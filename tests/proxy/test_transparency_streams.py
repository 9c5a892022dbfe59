"""Bytes pass as they come, in bounded memory, and what is noted is noted in time."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.core.model import Closing, Opening
from tests.fakes.relay import Wire, running_worker
from tests.fakes.upstream import Call, Upstream, answer_plainly

GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n"
CHAT += b'{"stream":true}'
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MEGABYTE = 1 << 20


class Steps:
    """An upstream that says one thing after another, each when it is told to."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts
        self.go = asyncio.Semaphore(0)

    async def __call__(self, call: Call) -> None:
        """Answer."""
        for part in self.parts:
            await self.go.acquire()
            await call.send(part)


@pytest.mark.parametrize(
    "parts",
    [
        (CHUNKED, b"9\r\ndata: 1\n\n\r\n", b"9\r\ndata: 2\n\n\r\n", b"0\r\n\r\n"),
        (CHUNKED, b"9\r\ndat", b"a: 1\n\n\r\n6\r\ndata: ", b"\r\n3\r\n2\n\n\r\n", b"0\r\n\r\n"),
        (CHUNKED, b"8\r\ndata: \xe2\x82", b"\r\n3\r\n\xac\n\n\r\n", b"0\r\n", b"\r\n"),
        (OK + b"Content-Length: 4\r\n\r\n", b"a", b"b", b"cd"),
        (OK + b"\r\n", b"a", b"b"),
        (
            b"HTTP/1.1 103 Early\r\n\r\n",
            b"HTTP/1.1 102 P\r\n\r\n",
            OK + b"Content-Length: 0\r\n\r\n",
        ),
    ],
    ids=["events", "half events", "half a character", "length", "until close", "1xx"],
)
async def test_what_has_come_is_passed_on_at_once(tmp_path: Path, parts: tuple[bytes, ...]) -> None:
    """The client has each part before the upstream sends the next."""
    steps = Steps(*parts)
    async with (
        asyncio.timeout(10),
        Upstream(steps) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        for part in parts:
            steps.go.release()
            if part == OK + b"\r\n":
                assert await wire.head() == OK + b"Connection: close\r\n\r\n"
            else:
                assert await wire.exactly(len(part)) == part
        await wire.close()


async def test_events_of_a_spliced_stream_are_passed_on_at_once(tmp_path: Path) -> None:
    """Each event as soon as it is whole."""
    event = b'data: {"choices":[{}],"usage":null}\n\n'
    steps = Steps(CHUNKED, *[b"%x\r\n%b\r\n" % (len(event), event)] * 3, b"0\r\n\r\n")
    async with (
        asyncio.timeout(10),
        Upstream(steps) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(CHAT)
        steps.go.release()
        await wire.head()
        for _ in range(3):
            steps.go.release()
            assert await wire.exactly(30) == b'18\r\ndata: {"choices":[{}]}\n\n\r\n'
        steps.go.release()
        assert await wire.exactly(5) == b"0\r\n\r\n"
        await wire.close()


async def test_a_body_passes_as_it_comes(tmp_path: Path) -> None:
    """The upstream has each part of an upload before the client sends the next."""
    async with Upstream(read_body=False) as upstream, running_worker(tmp_path, upstream.url) as w:
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def listen(call: Call) -> None:
            while data := await call.reader.read(100):
                heard.put_nowait(data)

        upstream.script = listen
        wire = await Wire.to(w.port)
        await wire.send(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        for part in (b"a", b"bc", b"def"):
            await wire.send(part)
            assert await asyncio.wait_for(heard.get(), 5) == part
        await wire.close()


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/files"])
async def test_the_journal_is_ahead_of_both_sides(tmp_path: Path, path: bytes) -> None:
    """The opening is there before the upstream hears, the closing before the client has all."""
    seen: list[list[type]] = []

    async def look(call: Call) -> None:
        seen.append([type(record) for record in worker.records()])
        await answer_plainly(call)

    request = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}" % path
    async with Upstream(look) as upstream, running_worker(tmp_path, upstream.url) as worker:
        wire = await Wire.to(worker.port)
        for _ in range(3):
            await wire.send(request)
            await wire.answer()
            seen.append([type(record) for record in worker.records()])
        await wire.close()
    assert seen == [[Opening, Closing] * (n // 2) + [Opening] * (n % 2) for n in range(1, 7)]


async def test_an_error_of_our_own_is_journalled_before_it_is_told(tmp_path: Path) -> None:
    """As any other end of a call."""
    async with running_worker(tmp_path, "http://127.0.0.1:9") as worker:
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        await wire.head()
        assert [closing.status for closing in worker.closings()] == [502]
        await wire.close()


@asynccontextmanager
async def worker_process(directory: Path, upstream_url: str) -> AsyncIterator[tuple[int, int]]:
    """Run a worker as a process of its own, and return its process id and its port."""
    environment = {name: value for name, value in os.environ.items() if name[:6] != "METER_"}
    environment |= {
        "METER_UPSTREAM_URL": upstream_url,
        "METER_DATA_DIR": str(directory),
        "METER_DRAIN_SECONDS": "1",
    }
    listener = socket.create_server(("127.0.0.1", 0))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "proxy", "proxy", "--listen-fd", str(listener.fileno())),
        env=environment,
        pass_fds=(listener.fileno(),),
        stdout=asyncio.subprocess.DEVNULL,
    )
    port = int(listener.getsockname()[1])
    listener.close()
    try:
        yield process.pid, port
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 20)


def peak_megabytes(pid: int) -> int:
    """Return how much memory a process has ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


@pytest.mark.parametrize("path", [b"/v1/files", b"/v1/responses"])
async def test_memory_does_not_grow_with_bodies(tmp_path: Path, path: bytes) -> None:
    """A hundred megabytes up and two hundred down, past a reader that rests."""

    async def flood(call: Call) -> None:
        size = 0
        while size < 100 * MEGABYTE:
            size += len(await call.reader.read(MEGABYTE))
        await call.send(OK + b"Content-Length: %d\r\n\r\n" % (200 * MEGABYTE))
        for _ in range(200):
            await call.send(bytes(MEGABYTE))

    async with (
        asyncio.timeout(60),
        Upstream(read_body=False) as upstream,
        worker_process(tmp_path, upstream.url) as (pid, port),
    ):
        wire = await Wire.to(port)
        await wire.send(GET)
        await wire.answer()
        before = peak_megabytes(pid)
        upstream.script = flood
        head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" % path
        await wire.send(head + b"Content-Length: %d\r\n\r\n" % (100 * MEGABYTE))
        for _ in range(100):
            await wire.send(bytes(MEGABYTE))
        await wire.head()
        await asyncio.sleep(0.5)
        for _ in range(200):
            await wire.exactly(MEGABYTE)
        assert peak_megabytes(pid) - before < 60
        await wire.close()


async def test_a_slow_upstream_holds_the_client_back(tmp_path: Path) -> None:
    """What it does not read stays with the client."""

    async def deaf(call: Call) -> None:
        call.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(20)

    async with (
        asyncio.timeout(10),
        Upstream(deaf, read_body=False) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        wire.writer.write(
            b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"
            + bytes(100_000_000)
        )
        await asyncio.sleep(0.4)
        assert wire.writer.transport.get_write_buffer_size() > 50_000_000
        wire.reset()
        assert (await worker.closing()).outcome == "client_disconnected"


async def test_own_errors_have_the_shape_that_clients_know(tmp_path: Path) -> None:
    """OpenAI's, with a type of the proxy's own and a field that says whose it is."""
    async with running_worker(tmp_path, "http://127.0.0.1:9") as worker:
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        head, body = await wire.answer()
        assert b"\r\nX-Meter-Error: upstream_unreachable\r\n" in head
        error = json.loads(body)["error"]
        assert error["message"].startswith("openai-meter: cannot connect to 127.0.0.1:9")
        assert (error["type"], error["param"], error["code"]) == (
            "upstream_unreachable",
            None,
            None,
        )
        await wire.send(GET.replace(b"GET", b"HEAD"))
        assert b"Content-Length: %d\r\n" % len(body) in await wire.head()
        await wire.send(GET)
        assert (await wire.answer())[1] == body
        await wire.close()
