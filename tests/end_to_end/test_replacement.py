"""SIGHUP replaces everything that runs, and nobody who calls notices."""

import asyncio
import re
import signal
from pathlib import Path

import aiohttp

from tests.end_to_end.imitation import imitating
from tests.end_to_end.load import CHAT, Load, until_recorded
from tests.fakes.serving import Serving, serving

PARTS = ("worker-0", "worker-1", "recorder", "dashboard")


async def _replaced(running: Serving, before: dict[str, int]) -> None:
    """Wait until the workers have been replaced, and then the other parts."""
    await running.until(lambda: any("workers replaced" in line for line in running.lines))
    await running.until(
        lambda: all(running.members().get(part, before[part]) != before[part] for part in PARTS)
    )


async def test_everything_is_replaced_under_load(open_directory: Path) -> None:
    """No call fails, each has one row, and a stream that is under way goes on to its end."""
    async with (
        imitating(pause=0.1) as upstream,
        serving(open_directory, upstream.url, "--log-calls=false", "--workers=2") as running,
        aiohttp.ClientSession() as session,
    ):
        dsn = re.search(r"(postgresql://\S+) \(embedded\)", running.banner)
        assert dsn is not None
        load = Load(int(running.proxy_url.rpartition(":")[2]))
        await load.learn(upstream)
        await running.until(lambda: set(PARTS) <= running.members().keys())
        before = running.members()
        url = running.proxy_url + "/v1/chat/completions"
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(100_000))
            await load.progress(50)
            async with session.post(url, json=CHAT | {"stream": True}) as stream:
                first = await stream.content.readany()
                running.process.send_signal(signal.SIGHUP)
                rest = await stream.content.read()
            await _replaced(running, before)
            await load.progress(len(load.answered) + 50)
            load.stop()
        assert first
        assert rest.endswith(b"data: [DONE]\n\n")
        assert load.failed == {}
        await until_recorded(dsn[1], [call for call in upstream.asked if call])
        await running.until_calls_are(len(upstream.asked))
        numbered = [call for call in upstream.asked if call]
        assert len(numbered) == len(load.answered)


async def test_an_idle_connection_outlives_the_worker_that_took_it_until_its_next_call(
    open_directory: Path,
) -> None:
    """It is answered once more, told to close, and the next one reaches the successor."""
    async with (
        imitating() as upstream,
        serving(open_directory, upstream.url, "--workers=1") as running,
    ):
        await running.until(lambda: "recorder" in running.members())
        host, port = running.proxy_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        request = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(request)
        assert b"Connection: close" not in await asyncio.wait_for(reader.read(4096), 30)
        running.process.send_signal(signal.SIGHUP)
        await running.until(lambda: any("workers replaced" in line for line in running.lines))
        writer.write(request)
        assert b"Connection: close" in await asyncio.wait_for(reader.read(), 30)
        writer.close()
        assert await running.call() == 200
