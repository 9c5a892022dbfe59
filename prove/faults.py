"""The faults: each does its harm, and returns only when it has seen that it was done.

Some of them set the clients' excuses, because only they know whose connections they take along.
"""

import asyncio
import os
import resource
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from prove.journals import (
    calls_of,
    copy_segments,
    has_written,
    last_of_the_dead,
    put_back,
    tear,
)
from prove.stage import PATIENCE_SECONDS, WORKERS, Stage, free_port, is_open
from tests.end_to_end.load import state_of
from tests.fakes.serving import processes_of

TINY = 100  # bytes that a file may have: less than any record
_CHUNK = bytes(1024 * 1024)
Do = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, and how often it is chosen; what needs Postgres waits until there is one."""

    name: str
    do: Do
    weight: float
    needs_postgres: bool = True
    needs_disk: bool = False
    takes_minutes: bool = False  # only in long runs


async def kill_worker(stage: Stage) -> None:
    """Kill a worker with SIGKILL."""
    await stage.kill_worker(await stage.one_worker())


async def kill_recorder(stage: Stage) -> None:
    """Kill the recorder with SIGKILL, and wait for another one."""
    victim = await stage.one_recorder()
    os.kill(victim, signal.SIGKILL)
    await stage.until(lambda: stage.members().get("recorder", victim) != victim, "another one")


async def kill_supervisor(stage: Stage) -> None:
    """Kill the supervisor with SIGKILL: all others leave by themselves; then start again."""
    assert await stage.stop(signal.SIGKILL) == -signal.SIGKILL
    await stage.start()


async def kill_everything(stage: Stage) -> None:
    """Kill everything that belongs to `serve` in one moment with SIGKILL."""
    stage.clients.closing = True
    stage.clients.excuse_all()
    for pid in stage.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    stage.clients.excuse_all()
    await stage.stop(signal.SIGKILL)
    await stage.start()


async def kill_postgres(stage: Stage) -> None:
    """Kill Postgres with SIGKILL, and start it again."""
    stage.postgres_up = False
    victim = stage.postmaster()
    os.kill(victim, signal.SIGKILL)
    await stage.postgres.stop()
    await asyncio.sleep(stage.chance.random())
    await stage.start_postgres()
    assert stage.postmaster() != victim


async def restart(stage: Stage) -> None:
    """Stop `serve` with calls in flight, and start it again."""
    assert await stage.stop() == 0, "serve did not end with status 0"
    await stage.start()


async def replace(stage: Stage) -> None:
    """Have everything replaced while calls go on."""
    await stage.until(lambda: len(stage.workers()) >= WORKERS, "all workers run")
    assert stage.process is not None
    before, members = len(stage.lines), stage.members()
    others = [pid for name, pid in members.items() if name in {"recorder", "dashboard"}]
    stage.process.send_signal(signal.SIGHUP)

    def said() -> bool:
        return any(
            "workers replaced" in line or "worker not replaced" in line
            for line in stage.lines[before:]
        )

    await stage.until(said, "the workers are replaced")
    assert any("workers replaced" in line for line in stage.lines[before:])
    await stage.until(
        lambda: all(state_of(pid) in "ZX" for pid in others), "recorder and dashboard are replaced"
    )


async def outage(stage: Stage) -> None:
    """Stop Postgres for a while, in which other faults happen."""
    await _away(stage, stage.chance.choice((1, 2, 4, 8, 20)))


async def long_outage(stage: Stage) -> None:
    """Stop Postgres for minutes, in which many other faults happen."""
    await _away(stage, 120 + 60 * stage.chance.random())


async def _away(stage: Stage, seconds: float) -> None:
    await stage.stop_postgres()

    async def end() -> None:
        await asyncio.sleep(seconds)
        await stage.start_postgres()

    assert stage.tasks is not None
    stage.tasks.create_task(end())


async def reset_database(stage: Stage) -> None:
    """Have Postgres end all connections."""
    query = "SELECT pg_terminate_backend(pid) AS done FROM pg_stat_activity"
    query += " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    await stage.one_recorder()
    async with asyncio.timeout(60):
        while not any(row["done"] for row in await stage.ask(query)):
            await asyncio.sleep(0.05)


async def reset_upstream(stage: Stage) -> None:
    """Have the upstream reset all of its connections."""
    stage.clients.resets.append(asyncio.get_running_loop().time())
    stage.upstream.reset_all()


async def reset_clients(stage: Stage) -> None:
    """Have half of the clients reset their connections."""
    async with asyncio.timeout(60):
        while not stage.clients.reset_some(stage.chance):
            await asyncio.sleep(0.05)


async def time_out(stage: Stage) -> None:
    """Allow statements no time until one of them has needed more."""
    said = stage.postgres_log().count("statement timeout")
    await stage.ask("ALTER ROLE CURRENT_USER SET statement_timeout = '1ms'")
    try:
        async with asyncio.timeout(60):
            while stage.postgres_log().count("statement timeout") == said:
                with suppress(OSError, asyncpg.PostgresError):
                    await _end_sessions(stage)
                await asyncio.sleep(0.2)
    finally:
        await _reset_timeout(stage)


async def fill_disk(stage: Stage) -> None:
    """Fill the disk of the data directory for a while, and what room others make there, too."""
    failures = _failures(stage)
    ballast = stage.data / "ballast"
    ends = asyncio.get_running_loop().time() + 1 + stage.chance.random()
    while asyncio.get_running_loop().time() < ends:
        await asyncio.to_thread(_fill, ballast)
        await asyncio.sleep(0.01)
    ballast.unlink()
    await _mended(stage, failures)


async def limit_files(stage: Stage) -> None:
    """Let workers write nothing for a while, or a part of a record (RLIMIT_FSIZE)."""
    failures = _failures(stage)
    await stage.until(stage.workers, "a worker runs")
    limited = stage.workers()
    for pid in limited:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (TINY, resource.RLIM_INFINITY))
    await asyncio.sleep(0.5 + stage.chance.random())
    for pid in limited:
        with suppress(ProcessLookupError):
            resource.prlimit(
                pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
    await _mended(stage, failures)


async def tear_journal(stage: Stage) -> None:
    """Kill a worker, and tear the end of its journal before anybody has read it."""
    recorder = await stage.one_recorder()
    os.kill(recorder, signal.SIGSTOP)
    try:
        await stage.kill_worker(await _one_that_has_written(stage))
        async with asyncio.timeout(PATIENCE_SECONDS):
            # The last of its threads gives its lock back, a moment after the first one is gone.
            while (segment := await asyncio.to_thread(last_of_the_dead, stage.journal)) is None:
                await asyncio.sleep(0.02)
        torn = await asyncio.to_thread(tear, segment, stage.chance)
        stage.torn.update(() if torn is None else (torn,))
    finally:
        with suppress(ProcessLookupError):
            os.kill(recorder, signal.SIGCONT)


async def replay(stage: Stage) -> None:
    """Put a copy of the journal back when all of it was recorded, some of it under its own name."""
    kept = stage.directory / "kept"
    await asyncio.to_thread(copy_segments, stage.journal, kept)
    calls = await asyncio.to_thread(calls_of, kept)
    query = "SELECT count(*) FROM user_api_usage WHERE event_id = ANY($1::uuid[])"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await stage.ask(query, calls))[0]["count"] < len(calls):
            await asyncio.sleep(0.2)
    put = await asyncio.to_thread(put_back, kept, stage.journal)
    await stage.until(lambda: not any(path.exists() for path in put), "the copy is read")
    stage.replayed += len(calls)


async def second_recorder(stage: Stage) -> None:
    """Start a second recorder by mistake, kill the first one, and then end the second one."""
    first = await stage.working_recorder()
    before = len(stage.lines)
    second = await stage.command("proxy", "recorder")

    def waits() -> bool:
        return any("another recorder has" in line for line in stage.lines[before:])

    try:
        await stage.until(waits, "the second recorder waits")
        os.kill(first, signal.SIGKILL)
        await asyncio.sleep(1 + stage.chance.random())
    finally:
        second.send_signal(stage.chance.choice((signal.SIGKILL, signal.SIGTERM)))
        await asyncio.wait_for(second.wait(), 60)


async def two_journals(stage: Stage) -> None:
    """Have two recorders bring in one backlog at once: one has a copy of the data directory."""
    await stage.stop_postgres()
    await asyncio.sleep(1 + stage.chance.random())
    await stage.stop()
    copy = stage.directory / "copy"
    await asyncio.to_thread(copy_segments, stage.journal, copy / "journal")
    assert list((copy / "journal").iterdir()), "there was no backlog"
    second = await stage.command("proxy", "recorder", METER_DATA_DIR=str(copy))
    await asyncio.gather(stage.start_postgres(), stage.start())
    await stage.until(
        lambda: not list((copy / "journal").glob("*.journal")), "the copied backlog is recorded"
    )
    second.terminate()
    await asyncio.wait_for(second.wait(), 60)
    await stage.until(lambda: not processes_of(copy), "it is gone")


async def step_clock(stage: Stage) -> None:
    """Send calls through one more worker, whose clock is set back and forth by days."""
    query = "SELECT count(*) FROM user_api_usage WHERE abs(extract(epoch FROM created_at - now())) "
    far = query + "> 86400"
    before = (await stage.ask(far))[0]["count"]
    port, seed = free_port(), stage.chance.randrange(10**6)
    listen = f"127.0.0.1:{port}"
    process = await stage.command("prove.stepping", str(seed), METER_LISTEN=listen)
    await stage.until(lambda: is_open(port), "the worker listens")
    await stage.clients.visit(port, 2.0)
    process.terminate()
    assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 0
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await stage.ask(far))[0]["count"] == before:
            await asyncio.sleep(0.1)


FAULTS: tuple[Fault, ...] = (
    Fault("kill -9 a worker", kill_worker, 12, needs_postgres=False),
    Fault("kill -9 the recorder", kill_recorder, 10, needs_postgres=False),
    Fault("kill -9 the supervisor", kill_supervisor, 4, needs_postgres=False),
    Fault("kill -9 everything but Postgres", kill_everything, 4, needs_postgres=False),
    Fault("kill -9 Postgres", kill_postgres, 6),
    Fault("SIGTERM and start", restart, 5, needs_postgres=False),
    Fault("SIGHUP, all replaced", replace, 5, needs_postgres=False),
    Fault("Postgres stopped for a while", outage, 5),
    Fault("Postgres stopped for minutes", long_outage, 0.5, takes_minutes=True),
    Fault("Postgres ends all connections", reset_database, 10),
    Fault("upstream resets all connections", reset_upstream, 8, needs_postgres=False),
    Fault("clients reset half of theirs", reset_clients, 8, needs_postgres=False),
    Fault("statement timeouts", time_out, 6),
    Fault("disk full", fill_disk, 5, needs_postgres=False, needs_disk=True),
    Fault("files may not grow", limit_files, 5, needs_postgres=False),
    Fault("journal torn at its end", tear_journal, 8, needs_postgres=False),
    Fault("journal copied back", replay, 5),
    Fault("second recorder started", second_recorder, 4, needs_postgres=False),
    Fault("two recorders, one backlog", two_journals, 2),
    Fault("clock of a worker set back and forth", step_clock, 4),
)


async def _end_sessions(stage: Stage) -> None:
    connection = await asyncpg.connect(stage.dsn, server_settings={"statement_timeout": "0"})
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()


async def _reset_timeout(stage: Stage) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(OSError, asyncpg.PostgresError):
                connection = await asyncpg.connect(
                    stage.dsn, server_settings={"statement_timeout": "0"}
                )
                await connection.execute("ALTER ROLE CURRENT_USER RESET statement_timeout")
                await connection.close()
                await _end_sessions(stage)
                return
            await asyncio.sleep(0.1)


async def _one_that_has_written(stage: Stage) -> int:
    """Return a worker that has a record in its journal: a new one has none for a while."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            found = [pid for pid in stage.workers() if has_written(stage.journal, pid)]
            if found:
                return stage.chance.choice(found)
            await asyncio.sleep(0.02)


def _failures(stage: Stage) -> dict[int, int]:
    """Return the failed writes of each worker by process id."""
    return {one["pid"]: one["journal_failures"] for one in stage.snapshots()}


async def _mended(stage: Stage, before: dict[int, int]) -> None:
    """Wait until workers could not write for a while, and all of them have said so since."""
    room_since = time.time()

    def mended() -> bool:
        shots = stage.snapshots(room_since)
        failed = any(one["journal_failures"] > before.get(one["pid"], 0) for one in shots)
        said = {one["pid"] for one in shots} >= set(stage.workers())
        return failed and said and not any(one["journal_waiting"] for one in shots)

    await stage.until(mended, "what was held is written")
    assert not any(one["journal_lost"] for one in stage.snapshots()), "the journal gave records up"


def _fill(path: Path) -> None:
    with path.open("ab", 0) as file:
        size = 4 * len(_CHUNK)
        while size:
            try:
                os.write(file.fileno(), _CHUNK[:size])
            except OSError:
                size //= 2
