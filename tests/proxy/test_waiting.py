import asyncio
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from proxy.durability import lock_file
from proxy.errors import DatabaseError, DatabaseUnreachableError
from proxy.waiting import Patience, StoppedError, claim, pause


class Database:
    """Answers after a number of failures."""

    def __init__(self, *failures: DatabaseError) -> None:
        self.failures = list(failures)
        self.asked = 0

    async def ask(self) -> str:
        """Fail, or answer."""
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return "answer"


async def test_patience_lasts_until_the_database_answers() -> None:
    """The log has one line when it goes and one when it is back."""
    database = Database(DatabaseUnreachableError("gone"), DatabaseError("odd"))
    patience = Patience(asyncio.Event())
    with capture_logs() as logs:
        assert await patience.insist(database.ask) == "answer"
        assert await patience.insist(database.ask) == "answer"
    assert [(entry["event"], entry.get("problem")) for entry in logs] == [
        ("database unreachable, calls wait in the journal", "gone"),
        ("database reachable again", None),
    ]
    assert (patience.reachable, patience.problem) == (True, None)


async def test_a_refusal_is_raised_where_waiting_is_of_no_use() -> None:
    """A wrong version of Postgres does not become a right one."""
    patience = Patience(asyncio.Event())
    with pytest.raises(DatabaseError, match="too old"):
        await patience.insist(Database(DatabaseError("too old")).ask, refusable=True)
    unreachable = Database(DatabaseUnreachableError("gone"))
    assert await patience.insist(unreachable.ask, refusable=True) == "answer"


async def test_told_to_stop_it_tries_once_more_and_gives_up() -> None:
    """What is in the journal is safe there; the process has to end."""
    stop = asyncio.Event()
    stop.set()
    patience = Patience(stop)
    database = Database(*[DatabaseUnreachableError("gone")] * 5)
    with pytest.raises(StoppedError):
        await patience.insist(database.ask)
    assert database.asked == 1
    assert (patience.reachable, patience.problem) == (False, "gone")


async def test_a_pause_ends_when_it_is_time_to_stop() -> None:
    """Nobody waits for a sleeper."""
    stop = asyncio.Event()
    await pause(stop, 0.01)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(pause(stop, 60))
        await asyncio.sleep(0)
        stop.set()


async def test_a_claim_waits_for_the_lock_and_says_so_once(tmp_path: Path) -> None:
    """Two recorders on one journal would only do each other's work again."""
    path = tmp_path / "recorder.lock"
    stop = asyncio.Event()
    held = await asyncio.to_thread(lock_file, path)
    with capture_logs() as logs:
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(claim(path, stop))
            await asyncio.sleep(1.3)
            assert not waiting.done()
            os.close(held)
    assert len(logs) == 1
    lock = waiting.result()
    assert lock is not None
    waiting_again = asyncio.ensure_future(claim(path, stop))
    await asyncio.sleep(0.1)
    stop.set()
    assert await waiting_again is None
    os.close(lock)
