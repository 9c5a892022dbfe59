"""Everything is killed under load, one thing at a time: no row is lost, and none is doubled."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.end_to_end.imitation import Imitation, imitating
from tests.end_to_end.load import Load, check_ledger, halt, until_recorded
from tests.fakes.serving import Serving, processes_of, serving

CALLS = 320
CLIENTS = 16
GONE_SECONDS = 15


def _port(running: Serving) -> int:
    return int(running.proxy_url.rpartition(":")[2])


def _embedded_dsn(running: Serving) -> str:
    match = re.search(r"(postgresql://\S+) \(embedded\)", running.banner)
    assert match is not None, running.banner
    return match[1]


@asynccontextmanager
async def _loaded(directory: Path, *flags: str) -> AsyncIterator[tuple[Serving, Imitation, Load]]:
    """Run everything in front of an imitation, and clients that know what to expect of it."""
    async with (
        imitating(pause=0.1) as upstream,
        serving(directory, upstream.url, "--log-calls=false", *flags) as running,
    ):
        load = Load(_port(running))
        await load.learn(upstream)
        yield running, upstream, load


async def _kill(running: Serving, name: str) -> int:
    """Kill a part and wait for the one that takes its place; return whom it was."""
    await running.until(lambda: name in running.members())
    victim = running.members()[name]
    os.kill(victim, signal.SIGKILL)
    await running.until(lambda: running.members().get(name, victim) != victim)
    return victim


def _interrupted(outcomes: dict[str, str]) -> set[str]:
    return {call for call, outcome in outcomes.items() if outcome == "interrupted"}


async def test_a_killed_worker_costs_only_its_own_connections(open_directory: Path) -> None:
    """Calls that it had under way have one row each, `interrupted`; all others are whole.

    One whose closing was written before its last piece went out is `ok`, and whole for the
    upstream, though its client has not got it all.
    """
    async with _loaded(open_directory, "--workers=2") as (running, upstream, load):
        dsn = _embedded_dsn(running)
        await running.until(lambda: len(running.members()) == 5)
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(CALLS, clients=CLIENTS))
            await load.progress(CALLS // 3)
            members = running.members()
            workers = [members["worker-0"], members["worker-1"]]
            theirs = [await halt(pid) for pid in workers]
            victim, ports = max(zip(workers, theirs, strict=True), key=lambda pair: len(pair[1]))
            os.kill(victim, signal.SIGKILL)
            (other,) = {*workers} - {victim}
            os.kill(other, signal.SIGCONT)
            await running.until(lambda: not {*workers} <= {*running.members().values()})
            await running.until(lambda: len(running.members()) == 5)
        assert other in running.members().values()
        await until_recorded(dsn, upstream.asked)
        outcomes = await check_ledger(dsn, upstream.asked, load)
    assert load.failed
    assert set(load.failed.values()) <= ports, "a call failed that was not the victim's"
    assert len(load.answered) + len(load.failed) == CALLS
    interrupted = _interrupted(outcomes)
    assert interrupted
    assert interrupted <= load.failed.keys()
    assert load.failed.keys() & {*upstream.asked} - interrupted <= {*upstream.answered}
    assert not processes_of(open_directory)


async def test_a_killed_recorder_is_not_noticed(open_directory: Path, database: str) -> None:
    """Twice under load: all calls are answered, all have their row."""
    flags = ("--database-url", database)
    async with _loaded(open_directory, *flags) as (running, upstream, load):
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(CALLS, clients=CLIENTS))
            for share in (4, 2):
                await load.progress(CALLS // share)
                await _kill(running, "recorder")
        assert not load.failed
        assert len(load.answered) == CALLS
        await until_recorded(database, upstream.asked)
        outcomes = await check_ledger(database, upstream.asked, load)
    assert outcomes.keys() == load.answered, "a row of no call"


async def test_a_killed_postgres_is_not_noticed(open_directory: Path) -> None:
    """It recovers by itself, and the recorder goes on where the ledger ends."""
    async with _loaded(open_directory) as (running, upstream, load):
        dsn = _embedded_dsn(running)
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(CALLS, clients=CLIENTS))
            await load.progress(CALLS // 3)
            await _kill(running, "postgres")
        assert not load.failed
        assert len(load.answered) == CALLS
        await until_recorded(dsn, upstream.asked)
        outcomes = await check_ledger(dsn, upstream.asked, load)
        assert outcomes.keys() == load.answered, "a row of no call"
    assert not processes_of(open_directory)


async def test_nothing_survives_the_supervisor_but_the_calls(open_directory: Path) -> None:
    """Its children finish what they had begun and end; the next start completes the ledger.

    Who failed was turned away: nothing of it has reached the upstream.
    """
    async with _loaded(open_directory) as (running, upstream, load):
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(CALLS, clients=CLIENTS))
            await load.progress(CALLS // 3)
            await running.stop(signal.SIGKILL)
            load.stop()
        async with asyncio.timeout(GONE_SECONDS):
            while processes_of(open_directory):
                await asyncio.sleep(0.1)
        async with serving(open_directory, upstream.url) as again:
            dsn = _embedded_dsn(again)
            await until_recorded(dsn, upstream.asked)
            outcomes = await check_ledger(dsn, upstream.asked, load)
    assert not load.failed.keys() & {*upstream.asked}
    assert outcomes.keys() == {*upstream.answered} == load.answered
    assert not processes_of(open_directory)


async def test_all_at_once_leaves_nothing_but_the_journal(open_directory: Path) -> None:
    """Every process is killed in the same moment; what they knew is in the ledger after a start."""
    async with _loaded(open_directory, "--workers=2") as (running, upstream, load):
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(CALLS, clients=CLIENTS))
            await load.progress(CALLS // 3)
            load.stop()
            for pid in processes_of(open_directory):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await running.stop(signal.SIGKILL)
        async with serving(open_directory, upstream.url) as again:
            dsn = _embedded_dsn(again)
            await until_recorded(dsn, upstream.asked)
            outcomes = await check_ledger(dsn, upstream.asked, load)
    interrupted = _interrupted(outcomes)
    assert interrupted
    assert interrupted <= load.failed.keys()
    assert load.failed.keys() & {*upstream.asked} - interrupted <= {*upstream.answered}
    assert not processes_of(open_directory)


async def test_stopping_finishes_what_is_under_way(open_directory: Path, database: str) -> None:
    """SIGTERM: no call fails, the rows are there when the process is gone, and it says 0."""
    flags = ("--database-url", database)
    async with _loaded(open_directory, *flags) as (running, upstream, load):
        await load.run(1)
        await until_recorded(database, upstream.asked)  # the recorder has started
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(CALLS, clients=CLIENTS, first=1))
            await load.progress(CALLS // 3)
            load.stop()
            assert len(upstream.asked) > len(upstream.answered), "nothing is under way"
            assert await running.stop() == 0
            outcomes = await check_ledger(database, upstream.asked, load)
        assert not load.failed
        assert set(outcomes) == set(upstream.answered) == load.answered
        assert not processes_of(open_directory)
