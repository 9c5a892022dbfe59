"""An outage: calls at a steady rate while Postgres is away for minutes.

Counts calls that failed, watches the memory of the worker, and measures how long it takes after
the return of Postgres until every call has its row.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import asyncpg
from aiohttp import web
from draining import memory_of

from proxy.embedded import EmbeddedPostgres

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Count to three."}]}
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "1 2 3"}}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
    }
).encode()
PORT, UPSTREAM_PORT = 18480, 18481


class Outage:
    """The run: what is started, and what is counted."""

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self._directory = directory
        self._options = options
        self._calls = self._failed = self._asked = 0
        self._latencies: list[float] = []
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    async def run(self, postgres: EmbeddedPostgres, dsn: str) -> None:
        """Call before, during and after the outage."""
        upstream = await self._upstream()
        for part in ("recorder", "proxy"):
            self._start(part, dsn)
        await self._until_listening()
        minutes = self._options.minutes
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            calling = tasks.create_task(self._call(session))
            await asyncio.sleep(5)
            self._latencies.clear()
            await asyncio.sleep(15)
            print(f"before: {self._told()}")
            postgres.stop()
            for minute in range(minutes):
                await asyncio.sleep(60)
                print(f"Postgres is away for {minute + 1} min: {self._told()}", flush=True)
            postgres.start()
            back = time.monotonic()
            during = self._calls
            await self._until_rows(dsn, during)
            print(f"back: {during} rows after {time.monotonic() - back:.1f} s, {self._told()}")
            calling.cancel()
        await self._until_rows(dsn, self._asked)
        print(f"upstream was asked {self._asked} times; all have a row; {self._told()}")
        for process in self._processes.values():
            process.terminate()
            process.wait(60)
        await upstream.cleanup()

    async def _upstream(self) -> web.AppRunner:
        async def answer(request: web.Request) -> web.Response:
            await request.read()
            self._asked += 1
            return web.Response(body=ANSWER, content_type="application/json")

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", UPSTREAM_PORT).start()
        return runner

    def _start(self, part: str, dsn: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name[:6] != "METER_"}
        environment |= {
            "METER_DATA_DIR": str(self._directory),
            "METER_DATABASE_URL": dsn,
            "METER_LISTEN": f"127.0.0.1:{PORT}",
            "METER_UPSTREAM_URL": f"http://127.0.0.1:{UPSTREAM_PORT}",
            "METER_LOG_CALLS": "false",
        }
        command = [sys.executable, "-m", "proxy", part]
        self._processes[part] = subprocess.Popen(command, env=environment)

    async def _until_listening(self) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", PORT)
                except OSError:
                    await asyncio.sleep(0.1)
                else:
                    writer.close()
                    return

    async def _call(self, session: aiohttp.ClientSession) -> None:
        async with asyncio.TaskGroup() as tasks:
            began, number = time.monotonic(), 0
            while True:
                number += 1
                tasks.create_task(self._one(session, number))
                ahead = began + number / self._options.rate - time.monotonic()
                await asyncio.sleep(max(0.0, ahead))

    async def _one(self, session: aiohttp.ClientSession, number: int) -> None:
        began = time.monotonic()
        try:
            async with session.post(
                f"http://127.0.0.1:{PORT}/v1/chat/completions",
                json=BODY,
                headers={"X-Meter-User": f"u{number % 500}", "X-Meter-Endpoint": "hint"},
                timeout=aiohttp.ClientTimeout(30),
            ) as answer:
                good = answer.status == 200 and await answer.read() == ANSWER
        except (aiohttp.ClientError, TimeoutError):
            good = False
        self._calls += 1
        self._failed += not good
        self._latencies.append(time.monotonic() - began)

    async def _until_rows(self, dsn: str, count: int) -> None:
        async with asyncio.timeout(300):
            while True:
                try:
                    connection = await asyncpg.connect(dsn)
                    rows = await connection.fetchval("SELECT calls FROM ledger_status")
                    await connection.close()
                    if rows >= count:
                        return
                except (OSError, asyncpg.PostgresError):
                    pass
                await asyncio.sleep(0.2)

    def _told(self) -> str:
        state = json.loads((self._directory / "recorder.json").read_text())
        latencies, self._latencies = sorted(self._latencies) or [0.0], []  # none: no calls since
        p50, p99 = (latencies[int(len(latencies) * q)] * 1000 for q in (0.5, 0.99))
        worker, recorder = (memory_of(self._processes[n].pid) for n in ("proxy", "recorder"))
        return (
            f"{self._calls} calls, {self._failed} failed; p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
            f"slowest {latencies[-1] * 1000:.0f} ms; "
            f"worker {worker:.1f} MB, recorder {recorder:.1f} MB, "
            f"backlog {state['lag_bytes'] / 1e6:.1f} MB, {state['backlog_seconds']:.0f} s"
        )


def main() -> None:
    """Make an outage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="meter-outage-", dir="/tmp"))
    directory.chmod(0o755)
    postgres = EmbeddedPostgres(directory / "postgres")
    try:
        dsn = postgres.start()
        asyncio.run(Outage(directory, options).run(postgres, dsn))
    finally:
        postgres.stop()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
