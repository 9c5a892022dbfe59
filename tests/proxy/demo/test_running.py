import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from proxy.demo.running import CALLS, pause
from tests.fakes.running import fetch
from tests.fakes.serving import PATIENCE_SECONDS, processes_of


def test_a_demo_that_is_left_alone_does_not_bury_its_past() -> None:
    """A call every other second at first; over a working day about as many as a day has anyway."""
    made, second = 0, 0.0
    while second < 8 * 3600:
        made, second = made + 1, second + pause(second)
    assert pause(0) < 2
    assert made < 3 * CALLS / 60


@asynccontextmanager
async def _demo(directory: Path, *flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a demo of few calls; its directory is made inside of the given one."""
    elsewhere = {"METER_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/real", "METER_LISTEN": ":1"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "demo", "--calls", "300", *flags),
        env={**os.environ, **elsewhere, "TMPDIR": str(directory)},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _said(process: asyncio.subprocess.Process, pattern: str, *, so_far: str = "") -> str:
    """Wait until it has said something, and return all that it has said."""
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not re.search(pattern, so_far):
            piece = await process.stderr.read(4096)
            assert piece, so_far
            so_far += piece.decode()
    return so_far


async def test_a_demo_fills_a_ledger_goes_on_and_leaves_nothing(open_directory: Path) -> None:
    """Ports that are taken are no obstacle, a real database is not touched."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = ("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
        async with _demo(open_directory, *flags, "--dashboard-listen", "127.0.0.1:0") as process:
            text = await _said(process, r"calls since")
            text = await _said(process, r"dashboard +\S+", so_far=text)
            (made,) = await asyncio.to_thread(lambda: list(open_directory.iterdir()))
            dsn = f"postgresql://meter@/postgres?host={made}/data/postgres/sock"
            past = int(re.findall(r"([\d,]+) calls since", text)[0].replace(",", ""))
            await _until_more_than(dsn, past)
            found = re.search(r"dashboard +(\S+)/admin", text)
            assert found is not None
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{found[1]}/healthz") as answer,
            ):
                assert answer.status == 200
            (row,) = await fetch(
                dsn, "SELECT max(created_at) - min(created_at) AS span FROM user_api_usage"
            )
            assert row["span"].days > 25
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await process.wait() == 0
    assert await asyncio.to_thread(lambda: list(open_directory.iterdir())) == []
    assert processes_of(open_directory) == {}


async def _until_more_than(dsn: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await fetch(dsn, "SELECT count(*) FROM user_api_usage"))[0]["count"] <= count:
            await asyncio.sleep(0.2)


async def test_a_demo_can_be_stopped_at_once(open_directory: Path) -> None:
    """While Postgres is being made and the past is under way."""
    async with _demo(
        open_directory, "--listen", "127.0.0.1:0", "--dashboard-listen", "127.0.0.1:0"
    ) as process:
        await _said(process, "invented")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await process.wait() == 0
    assert await asyncio.to_thread(lambda: list(open_directory.iterdir())) == []
    assert processes_of(open_directory) == {}
