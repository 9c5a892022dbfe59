"""Several recorders, each with the journals of a host of its own, write to one database at once."""

import asyncio
import contextlib
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from msgspec.structs import replace

from proxy.core.model import Closing
from proxy.journal import JournalWriter
from proxy.rollups import Period
from proxy.verifying import run_verify
from tests.fakes.records import closing
from tests.fakes.running import recording, until_rows

HOSTS = 4
CALLS = 3000  # of each host


def call(host: int, number: int) -> Closing:
    """Return a call whose sums all hosts have keys of: the same users, features and minutes."""
    made = closing(host * CALLS + number)
    milliseconds = int(datetime(2026, 11, 1, 12, number % 60, tzinfo=UTC).timestamp() * 1000)
    event_id = milliseconds.to_bytes(6, "big") + made.opening.event_id[6:]
    user = f"u{(number * 7 + host * 3) % 50}"
    return replace(
        made,
        opening=replace(made.opening, event_id=event_id, user_id=user, endpoint=f"e{number % 3}"),
    )


def write(directory: Path, host: int) -> None:
    """Write the journal of a host whose worker is gone."""
    journal = JournalWriter(directory / "journal")
    for first in range(0, CALLS, 500):
        journal.append_many([call(host, number) for number in range(first, first + 500)])
    # Whoever moves a host to another machine may bring records twice.
    journal.append_many([call((host + 1) % HOSTS, number) for number in range(0, CALLS, 3)])
    journal.close()


async def test_four_recorders_at_once_do_not_deadlock(tmp_path: Path, database: str) -> None:
    """They wait for each other, and every sum is exact; a call in two journals is one row."""
    for host in range(HOSTS):
        await asyncio.to_thread(write, tmp_path / str(host), host)
    with contextlib.ExitStack() as stack:
        for host in range(HOSTS):
            stack.enter_context(recording(tmp_path / str(host), database))
        await until_rows(database, HOSTS * CALLS, seconds=120)
    connection = await asyncpg.connect(database)
    # The statistics are written when a session ends.
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await connection.fetchval(deadlocks) == 0
    assert await connection.fetchval("SELECT calls FROM ledger_status") == HOSTS * CALLS
    await connection.close()
    lines: list[str] = []
    assert await asyncio.to_thread(run_verify, database, Period(), lines.append) == 0, lines
