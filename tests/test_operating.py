"""docs/operating.md says what is so: nginx, the databases' administrator, paths, links."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.documents import ROOT, block
from tests.fakes.relay import Wire, running_worker
from tests.fakes.upstream import Call, Upstream

OPERATING = ROOT / "docs" / "operating.md"
PATIENCE_SECONDS = 60
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\nServer: cloudflare\r\n"
    b"Content-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@pytest.fixture
def _zone() -> None:
    """Read the time zone of the worker's settings before the loop runs; it is kept from then on."""
    ZoneInfo("UTC")


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
