"""docs/operating.md says what is so: nginx, the databases' administrator, paths, links."""

import asyncio
import json
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.documents import ROOT, block, table
from tests.fakes.answers import answer
from tests.fakes.relay import Wire, running_worker
from tests.fakes.serving import serving
from tests.fakes.upstream import Call, Upstream

OPERATING = ROOT / "docs" / "operating.md"
PATIENCE_SECONDS = 60
RARE = {"journal/refused.jsonl", "dashboard.sqlite-journal"}
IN_THE_MAKING = re.compile(r"\..+\.new")
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\nServer: cloudflare\r\n"
    b"Content-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@pytest.fixture
def _zone() -> None:
    """Read the time zone of the worker's settings before the loop runs; it is kept from then on."""
    ZoneInfo("UTC")


async def test_the_data_directory_holds_what_is_listed(open_directory: Path) -> None:
    """Whoever looks into it finds each name explained; some are rarely there, or for a moment."""
    data = open_directory / "data"
    async with Upstream() as upstream, serving(data, upstream.url) as running:
        assert await running.call() == 200
        await running.until_calls_are(1)
        found = {path.name for path in await asyncio.to_thread(lambda: list(data.iterdir()))}
    listed = " ".join(row[0] for row in table(OPERATING, "Path"))
    named = {name.rstrip("/") for name in re.findall(r"`([^`]+)`", listed)}
    assert {name for name in found if not IN_THE_MAKING.fullmatch(name)} - RARE == named - RARE


@pytest.mark.usefixtures("_zone")
async def test_a_call_is_logged_as_shown(tmp_path: Path) -> None:
    """The line has these facts and no others."""
    async with (
        Upstream(script=answer(b'{"prompt_tokens":1}')) as upstream,
        running_worker(tmp_path, upstream.url) as running,
    ):
        wire = await Wire.to(running.port)
        body = b'{"model":"gpt-5.4-mini"}'
        await wire.send(CHAT % (len(body), body))
        await wire.answer()
        await wire.close()
    shown = json.loads(block(OPERATING, "json", '"event":"call"'))
    (line,) = running.lines
    assert list(shown) == ["time", "level", "event", "process", *line]


@pytest.mark.usefixtures("_zone")
async def test_nginx_in_front_changes_nothing(tmp_path: Path) -> None:
    """With the settings that are shown: target and fields as sent, events when they are made."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    first_seen = asyncio.Event()

    async def two_events(call: Call) -> None:
        await call.send(STREAM_HEAD + b"7\r\ndata: 1\r\n")
        await asyncio.wait_for(first_seen.wait(), PATIENCE_SECONDS)
        await call.send(b"7\r\ndata: 2\r\n0\r\n\r\n")

    request = (
        b"GET //v1/a%2Fb/./c?q=%20+ HTTP/1.1\r\nHost: x\r\nodd_name: 1\r\nX-Meter-User: u\r\n\r\n"
    )
    async with (
        Upstream(script=two_events) as upstream,
        running_worker(tmp_path / "data", upstream.url) as running,
        _nginx(program, tmp_path, running.port) as port,
    ):
        wire = await Wire.to(port)
        await wire.send(request)
        head = await wire.head()
        await wire.until(b"data: 1")
        first_seen.set()
        await wire.until(b"data: 2")
        await wire.close()
    call = upstream.calls[0]
    assert call.first_line == b"GET //v1/a%2Fb/./c?q=%20+ HTTP/1.1"
    assert {line.partition(b":")[0].lower() for line in call.lines} == {b"host", b"odd_name"}
    for line in STREAM_HEAD.splitlines()[1:-1]:
        assert line in head.splitlines()


@asynccontextmanager
async def _nginx(program: str, directory: Path, worker_port: int) -> AsyncIterator[int]:
    """Run nginx with the settings of the document on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    shown = block(OPERATING, "nginx", "upstream openai_meter")
    shown = shown.replace("listen 8000", f"listen 127.0.0.1:{port}")
    shown = shown.replace("127.0.0.1:8080", f"127.0.0.1:{worker_port}")
    places = "".join(
        f"{name}_temp_path {directory / name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = directory / "nginx.conf"
    text = f"pid {directory}/pid; events {{}} http {{ access_log off; {places}\n{shown}}}"
    await asyncio.to_thread(configuration.write_text, text)
    process = await asyncio.create_subprocess_exec(
        program, "-c", configuration, "-e", "stderr", "-g", "daemon off; master_process off;"
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await _listens(port):
                assert process.returncode is None
                await asyncio.sleep(0.05)
        yield port
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
