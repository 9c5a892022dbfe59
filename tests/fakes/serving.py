"""`openai-meter serve` as a process of its own, and a look at everything that it starts."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

TOKEN = "token-of-the-tests"  # noqa: S105 - no real one
PATIENCE_SECONDS = 60


@dataclass(slots=True)
class Serving:
    """A running `serve`: where it listens, what it said, who belongs to it."""

    process: asyncio.subprocess.Process
    directory: Path
    banner: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def proxy_url(self) -> str:
        """The base URL of the proxy, without /v1."""
        return self._found(r"base URL +(\S+)/v1")

    @property
    def dashboard_url(self) -> str:
        """The base URL of the dashboard."""
        return self._found(r"dashboard +(\S+)/admin")

    def members(self) -> dict[str, int]:
        """Return the process ids of the parts by name, as far as they are there."""
        found: dict[str, int] = {}
        for pid, command in commands_under(self.process.pid).items():
            part = re.search(
                r"worker-\d+|(?<=proxy )recorder|-m (dashboard)|bin/(postgres)", command
            )
            if part is not None:
                found[part[1] or part[2] or part[0]] = pid
        return found

    async def call(self, path: str = "/v1/models", **options: Any) -> int:
        """Make a call through the proxy and return its status."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.proxy_url + path, **options) as answer,
        ):
            await answer.read()
            return answer.status

    async def stats(self) -> dict[str, Any]:
        """Return the overall sums that the dashboard shows; empty while it cannot."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"{self.dashboard_url}/api/usage/stats"
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(url, headers=headers) as answer,
            ):
                overall: dict[str, Any] = (await answer.json()).get("overall", {})
                return overall
        except aiohttp.ClientError:
            return {}

    async def until_calls_are(self, count: int) -> dict[str, Any]:
        """Wait until the dashboard counts so many calls, and return the sums."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (stats := await self.stats()).get("calls") != count:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError("".join(self.lines[-40:])) from None
        return stats

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not true():
                await asyncio.sleep(0.05)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.process.wait()

    def _found(self, pattern: str) -> str:
        match = re.search(pattern, self.banner)
        assert match is not None, self.banner
        return match[1]


@asynccontextmanager
async def serving(directory: Path, upstream_url: str, *flags: str) -> AsyncIterator[Serving]:
    """Start everything on free ports, wait for the banner, and leave nothing behind."""
    process = await start(directory, upstream_url, *flags)
    running = Serving(process, directory)
    assert process.stdout is not None
    assert process.stderr is not None
    log = asyncio.get_running_loop().create_task(_collect(process.stdout, running.lines))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not re.search(r"^  data ", running.banner, re.MULTILINE):
                line = await process.stderr.readline()
                assert line, f"serve ended: {running.banner}"
                running.banner += line.decode()
        errors = asyncio.get_running_loop().create_task(_collect(process.stderr, running.lines))
        yield running
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await process.wait()
    await asyncio.wait_for(asyncio.gather(log, errors), PATIENCE_SECONDS)


async def start(directory: Path, upstream_url: str, *flags: str) -> asyncio.subprocess.Process:
    """Start `openai-meter serve`."""
    environment = {name: value for name, value in os.environ.items() if name[:6] != "METER_"}
    settings = {
        "METER_UPSTREAM_URL": upstream_url,
        "METER_DATA_DIR": str(directory),
        "METER_LISTEN": "127.0.0.1:0",
        "METER_DASHBOARD_LISTEN": "127.0.0.1:0",
        "METER_API_TOKENS": TOKEN,
        "METER_WORKERS": "1",
        "METER_DRAIN_SECONDS": "5",
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "proxy",
        "serve",
        *flags,
        env=environment | settings,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def commands_under(parent: int) -> dict[int, str]:
    """Return the command lines of a process's children."""
    found = {}
    for pid in _pids():
        if _parent(pid) == parent:
            found[pid] = _text(pid, "cmdline").replace("\0", " ")
    return found


def processes_of(directory: Path) -> dict[int, str]:
    """Return every process that works with a data directory, wherever it hangs in the tree."""
    name, found = str(directory), {}
    for pid in _pids():
        place = ""
        try:
            place = os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115 - may vanish
        except OSError:
            continue
        if place.startswith(name) or f"={name}" in _text(pid, "environ"):
            found[pid] = _text(pid, "cmdline").replace("\0", " ")
    found.pop(os.getpid(), None)
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208


def _parent(pid: int) -> int | None:
    words = _text(pid, "stat").rpartition(")")[2].split()
    return int(words[1]) if words else None


def _text(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


async def _collect(stream: asyncio.StreamReader, lines: list[str]) -> None:
    async for line in stream:
        lines.append(line.decode())  # noqa: PERF401 - read while it grows
