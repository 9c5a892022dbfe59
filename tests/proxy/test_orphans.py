"""Tests of proxy.orphans: real processes of a Postgres whose postmaster was killed."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from proxy.embedded import EmbeddedPostgres
from proxy.orphans import ending, orphans_of, works_in
from tests.proxy.test_embedded import QUICK, ask, is_gone

ENDLESS = "DO $$ BEGIN LOOP END LOOP; END $$"  # waits for nothing, so it notices nothing
CLIENTS = 4


@pytest.fixture
def server(open_directory: Path) -> Iterator[EmbeddedPostgres]:
    """Return a Postgres that runs."""
    server = EmbeddedPostgres(open_directory / "pg", settings=QUICK)
    server.start()
    yield server
    server.stop()


def _kill_while_busy(server: EmbeddedPostgres, dsn: str) -> None:
    """Kill the postmaster while statements are under way that would go on for ever."""

    async def kill() -> None:
        async with asyncio.timeout(30):
            busy = [await asyncpg.connect(dsn) for _ in range(CLIENTS)]
            tasks = [asyncio.ensure_future(one.execute(ENDLESS)) for one in busy]
            query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query ~ 'DO'"
            watcher = await asyncpg.connect(dsn)
            while await watcher.fetchval(query) < CLIENTS:
                await asyncio.sleep(0.02)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        for one in (watcher, *busy):
            one.terminate()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(kill())
    assert server.pid is not None
    assert is_gone(server.pid)


def test_endless_statements_of_a_killed_postgres_do_not_keep_the_next_one_out(
    server: EmbeddedPostgres,
) -> None:
    """They hold its memory until they are ended; nothing committed is lost."""
    dsn = server.start()
    ask(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    _kill_while_busy(server, dsn)
    left = orphans_of(server.data)
    assert len(left) >= CLIENTS
    begun = time.monotonic()
    assert ask(server.start(), "SELECT answer FROM kept") == 42
    assert time.monotonic() - begun < 30  # one second, where nobody else wants the processor
    assert not set(left) & set(orphans_of(server.data))


def test_who_does_not_quit_is_killed(server: EmbeddedPostgres) -> None:
    """A process that stands still cannot follow a signal."""
    dsn = server.start()
    _kill_while_busy(server, dsn)
    left = orphans_of(server.data)
    for pid in left:
        with suppress(ProcessLookupError):  # it has noticed by itself
            os.kill(pid, signal.SIGSTOP)
    for _ in ending(server.data):
        time.sleep(0.05)
    assert not orphans_of(server.data)


def test_only_postgres_and_only_in_this_directory(tmp_path: Path) -> None:
    """A shell that stands in the directory lives on, and so does a Postgres beside it."""
    sleep = shutil.which("sleep")
    assert sleep is not None
    directory, other = tmp_path / "data", tmp_path / "other"
    directory.mkdir()
    other.mkdir()
    program = shutil.copy(sleep, tmp_path / "postgres")
    wanted = subprocess.Popen([program, "60"], cwd=directory)  # noqa: S603 - a copy of sleep
    others = [
        subprocess.Popen([sleep, "60"], cwd=directory),  # noqa: S603
        subprocess.Popen([program, "60"], cwd=other),  # noqa: S603
    ]
    try:
        assert orphans_of(directory) == [wanted.pid]
        assert works_in(wanted.pid, directory)
        assert not works_in(wanted.pid, other)
        for _ in ending(directory):
            wanted.poll()  # who is not buried is still there, but has no directory
            time.sleep(0.01)
        assert wanted.wait(10) == -signal.SIGQUIT
        assert [one.poll() for one in others] == [None, None]
    finally:
        for one in (wanted, *others):
            one.kill()
            one.wait()
