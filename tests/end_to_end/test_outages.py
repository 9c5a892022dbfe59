"""The database is away: calls go on, and their rows come later. It is there: they come at once."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.end_to_end.imitation import imitating
from tests.end_to_end.load import Load, check_ledger, until_recorded
from tests.fakes.running import Postgres, fetch
from tests.fakes.serving import serving

CALLS = 120
VISIBLE_SECONDS = 2.0
TRIES = 5


@pytest.fixture
async def server(open_directory: Path) -> AsyncIterator[Postgres]:
    """Return a Postgres that does not run yet."""
    postgres = Postgres(open_directory / "elsewhere")
    yield postgres
    await postgres.stop()


async def test_calls_need_no_database(open_directory: Path, server: Postgres) -> None:
    """It is away at the start, comes, goes in the middle of calls, and comes again."""
    dsn = await server.start()
    await server.stop()
    flags = ("--database-url", dsn, "--log-calls=false")
    async with (
        imitating(pause=0.05) as upstream,
        serving(open_directory / "data", upstream.url, *flags) as running,
    ):
        load = Load(int(running.proxy_url.rpartition(":")[2]))
        await load.learn(upstream)
        await load.run(CALLS)
        await server.start()
        await until_recorded(dsn, upstream.asked)
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(load.run(CALLS, first=CALLS))
            await load.progress(CALLS + CALLS // 3)
            await server.stop()
        assert load.answered == set(map(str, range(2 * CALLS)))
        assert await running.call("/_meter/readyz") == 200
        await server.start()
        await until_recorded(dsn, upstream.asked)
        outcomes = await check_ledger(dsn, upstream.asked, load)
        assert len(outcomes) == 2 * CALLS
    assert any("database unreachable" in line for line in running.lines)
    assert any("database reachable again" in line for line in running.lines)


async def test_a_row_is_there_soon_after_its_call(open_directory: Path, database: str) -> None:
    """Within two seconds of the end of the call, on the best of some tries on a busy machine."""
    flags = ("--database-url", database)
    async with imitating() as upstream, serving(open_directory, upstream.url, *flags) as running:
        load = Load(int(running.proxy_url.rpartition(":")[2]))
        await load.learn(upstream)
        waits = []
        for number in range(TRIES):
            await load.run(1, clients=1, first=number)
            waits.append(await _seconds_until_rows(database, number + 1))
    assert min(waits) < VISIBLE_SECONDS, waits


async def _seconds_until_rows(dsn: str, count: int) -> float:
    begun = time.monotonic()
    async with asyncio.timeout(30):
        while (await fetch(dsn, "SELECT count(*) FROM user_api_usage"))[0]["count"] < count:
            await asyncio.sleep(0.02)
    return time.monotonic() - begun
