"""What the faults happen to: a Postgres, a disk, `openai-meter serve`, and the clients of it."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import asyncpg

from prove.clients import Clients
from prove.upstream import Upstream
from tests.end_to_end.load import halt, state_of
from tests.fakes.running import Postgres, fetch
from tests.fakes.serving import commands_under, processes_of

PATIENCE_SECONDS = 120.0
DISK_BYTES = 96 * 1024 * 1024
WORKERS = 2
LOWEST_PORT = 10_000
_PART = re.compile(r"--name (worker-[\d-]+)|proxy (recorder)|-m (dashboard)")


@dataclass(slots=True)
class Stage:
    """Everything that runs; `directory` holds `data` (the proxy's) and `elsewhere` (Postgres')."""

    directory: Path
    upstream: Upstream
    clients: Clients
    chance: Random
    dsn: str
    postgres: Postgres
    postgres_up: bool = True
    has_disk: bool = False  # `data` is a small disk of its own
    torn: set[int] = field(default_factory=set)  # calls whose end we have torn off
    replayed: int = 0  # calls of which a record was put back
    lines: list[str] = field(default_factory=list)  # what `serve` and its like have said
    process: asyncio.subprocess.Process | None = None
    tasks: asyncio.TaskGroup | None = None

    @property
    def data(self) -> Path:
        """The data directory of the proxy."""
        return self.directory / "data"

    @property
    def journal(self) -> Path:
        """Where the workers write."""
        return self.data / "journal"

    def members(self) -> dict[str, int]:
        """Return the process ids of the parts of `serve` by name."""
        assert self.process is not None
        found = {}
        for pid, command in commands_under(self.process.pid).items():
            part = _PART.search(command)
            if part is not None:
                found[part[1] or part[2] or part[3]] = pid
        return found

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        return [pid for name, pid in self.members().items() if name.startswith("worker")]

    async def until(
        self, true: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Wait until something is so; say what it was where it does not come."""
        try:
            async with asyncio.timeout(seconds):
                while not true():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"waited in vain: {what}") from None

    async def start(self) -> None:
        """Start `serve`, and wait until it takes calls."""
        self.process = await self.command("proxy", "serve")
        await self.until(self._listens, "serve listens")
        self.clients.closing = False
        self.clients.closed_at = asyncio.get_running_loop().time()

    async def command(self, *words: str, **settings: str) -> asyncio.subprocess.Process:
        """Start a command on this stage: a module and its arguments."""
        environment = {key: value for key, value in os.environ.items() if key[:6] != "METER_"}
        environment |= {
            "METER_UPSTREAM_URL": f"http://127.0.0.1:{self.upstream.port}",
            "METER_DATA_DIR": str(self.data),
            "METER_DATABASE_URL": self.dsn,
            "METER_LISTEN": f"127.0.0.1:{self.clients.port}",
            "METER_DASHBOARD_LISTEN": "127.0.0.1:0",
            "METER_WORKERS": str(WORKERS),
            "METER_LOG_CALLS": "false",
            **settings,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *words),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert self.tasks is not None
        self.tasks.create_task(self._listen_to(process, words[1]))
        return process

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End `serve` by a signal; return its status when all of its processes are gone."""
        assert self.process is not None
        self.clients.closing = True
        self.process.send_signal(number)
        status = await asyncio.wait_for(self.process.wait(), PATIENCE_SECONDS)
        await self.until(lambda: not self.processes(), "its processes are gone")
        return status

    def processes(self) -> dict[int, str]:
        """Return all processes that work with the data directory."""
        return processes_of(self.data)

    async def one_worker(self) -> int:
        """Return a worker, at random, as soon as there is one."""
        await self.until(self.workers, "a worker runs")
        return self.chance.choice(self.workers())

    async def kill_worker(self, pid: int) -> None:
        """Kill a worker with SIGKILL; its own connections, and no others, are excused."""
        self.clients.excuse(await halt(pid))
        os.kill(pid, signal.SIGKILL)
        await self.until(lambda: state_of(pid) in "ZX", "it is dead")

    async def one_recorder(self) -> int:
        """Return the recorder that `serve` has started."""
        await self.until(lambda: "recorder" in self.members(), "the recorder runs")
        return self.members()["recorder"]

    async def working_recorder(self) -> int:
        """Return the same when it is the one that works; after a fault it may have to wait."""
        lock = self.data / "recorder.lock"
        await self.until(lambda: holder_of(lock) == self.members().get("recorder", -1), "it works")
        return self.members()["recorder"]

    def postmaster(self) -> int:
        """Return the process id of Postgres."""
        file = self.directory / "elsewhere" / "data" / "postmaster.pid"
        return int(file.read_text().splitlines()[0])

    def postgres_log(self) -> str:
        """Return what Postgres has said."""
        return (self.directory / "elsewhere" / "postgres.log").read_text(errors="replace")

    async def start_postgres(self) -> None:
        """Start Postgres and wait until it answers."""
        await self.postgres.start()
        self.postgres_up = True

    async def stop_postgres(self) -> None:
        """Stop Postgres."""
        self.postgres_up = False
        await self.postgres.stop()

    async def ask(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Return what the ledger says, as soon as it says anything."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    return await fetch(self.dsn, query, *values)
                await asyncio.sleep(0.1)

    def snapshots(self, since: float = 0.0) -> list[dict[str, Any]]:
        """Return what the living workers say of themselves, and have said since some time."""
        found = []
        for path in (self.data / "workers").glob("worker-*.json"):
            with suppress(OSError, ValueError):
                if path.stat().st_mtime >= since:
                    found.append(json.loads(path.read_bytes()))
        return [one for one in found if one["pid"] in self.workers()]

    def _listens(self) -> bool:
        assert self.process is not None
        if self.process.returncode is not None:
            raise AssertionError("serve ended: " + "".join(self.lines[-20:]))
        return is_open(self.clients.port) and len(self.snapshots()) >= WORKERS

    async def _listen_to(self, process: asyncio.subprocess.Process, name: str) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.lines.append(f"{name}: {line.decode(errors='replace')}")
            with (self.directory / "log").open("a") as log:
                log.write(self.lines[-1])


@asynccontextmanager
async def setting(
    directory: Path, upstream: Upstream, clients: Clients, chance: Random
) -> AsyncIterator[Stage]:
    """Set the stage and clear it afterwards, whatever has happened on it."""
    postgres = Postgres(directory / "elsewhere")
    has_disk = False
    try:
        dsn = await postgres.start()
        stage = Stage(directory, upstream, clients, chance, dsn, postgres)
        stage.data.mkdir()
        stage.has_disk = has_disk = _mount(stage.data)
        async with asyncio.TaskGroup() as stage.tasks:
            try:
                await stage.start()
                yield stage
            finally:
                for pid in stage.processes():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
    finally:
        await postgres.stop()
        if has_disk:
            subprocess.run(["umount", "-l", directory / "data"], check=False)  # noqa: ASYNC221


def free_port() -> int:
    """Return a port that nobody listens on, and that no outgoing connection is given.

    Otherwise one of them, anybody's, could have it while `serve` is away and starts again.
    """
    given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in Random().sample(range(LOWEST_PORT, max(given, 2 * LOWEST_PORT)), 100):
        with suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def is_open(port: int) -> bool:
    """Tell whether somebody listens on a port."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _mount(directory: Path) -> bool:
    """Put a small disk there; False: that needs rights that we do not have."""
    options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=755", "tmpfs"]
    try:
        done = subprocess.run(["mount", *options, directory], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def holder_of(lock: Path) -> int | None:
    """Return the process that has locked a file, by what the kernel says of locks (proc(5))."""
    with suppress(OSError):
        inode = lock.stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] != "->" and words[5].endswith(f":{inode}"):
                return int(words[4])
    return None
