import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from proxy.children import Child
from proxy.embedded import EmbeddedPostgres
from proxy.errors import ConfigurationError
from proxy.journal import JournalWriter
from proxy.recorder import run_recorder
from proxy.settings import Settings
from tests.fakes.records import closing, opening

BACKLOG = 24_000


class Process:
    """A recorder in a process of its own, with its log lines in a file."""

    def __init__(self, data: Path, dsn: str, log: Path) -> None:
        self._log = log
        environment = os.environ | {"METER_DATA_DIR": str(data), "METER_DATABASE_URL": dsn}
        command = [sys.executable, "-m", "proxy", "recorder", "--log-format", "json"]
        with log.open("ab") as output:
            self.popen = subprocess.Popen(  # noqa: S603
                command, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    def events(self) -> list[str]:
        """Return what was logged so far."""
        lines = self._log.read_text().splitlines()
        return [json.loads(line)["event"] for line in lines if line.startswith("{")]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.popen.send_signal(number)
        return self.popen.wait(20)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    """Return what starts recorders of one data directory; none outlives the test."""
    processes: list[Process] = []

    def make(dsn: str) -> Process:
        log = tmp_path / f"log-{len(processes)}"
        processes.append(Process(tmp_path / "data", dsn, log))
        return processes[-1]

    yield make
    for process in processes:
        process.popen.kill()
        process.popen.wait()


@contextmanager
def journal_of(tmp_path: Path) -> Iterator[JournalWriter]:
    """Return the journal of a worker that lives."""
    journal = JournalWriter(tmp_path / "data" / "journal", segment_bytes=200_000)
    yield journal
    journal.close()


def fetch(dsn: str, query: str) -> list[asyncpg.Record]:
    """Return the rows of a query."""

    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()

    return asyncio.run(run())


def calls(dsn: str) -> tuple[int, int]:
    """Return how many rows there are, and how many calls were added up."""
    (row,) = fetch(
        dsn,
        "SELECT (SELECT count(*) FROM user_api_usage) AS rows,"
        " (SELECT coalesce(sum(calls), 0)::bigint FROM usage_by_quarter_hour) AS calls",
    )
    return row["rows"], row["calls"]


def has_rows(dsn: str, count: int) -> bool:
    """Tell whether there are that many rows."""
    return calls(dsn)[0] >= count


def wait_for(claim: Callable[[], Any], *, seconds: float = 30.0) -> None:
    """Return as soon as the claim holds."""
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it should have become true by now"
        time.sleep(0.02)


def test_a_killed_recorder_loses_nothing_and_doubles_nothing(
    tmp_path: Path, database: str, start: Callable[[str], Process]
) -> None:
    """Killed in the middle of a backlog, three times; the ledger is exact in the end."""
    with journal_of(tmp_path) as journal:
        for number in range(BACKLOG):
            journal.append_many([opening(number), closing(number)])
        for share in (1, 2, 3):
            recorder = start(database)
            wait_for(partial(has_rows, database, share * BACKLOG // 5))
            recorder.end(signal.SIGKILL)
        assert calls(database)[0] < BACKLOG
        recorder = start(database)
        wait_for(lambda: calls(database)[0] >= BACKLOG)
        assert recorder.end() == 0
    assert calls(database) == (BACKLOG, BACKLOG)


def test_a_killed_worker_leaves_rows_for_all_of_its_calls(
    tmp_path: Path, database: str, start: Callable[[str], Process]
) -> None:
    """Those that were over are as they were, those that were not are interrupted."""
    data = tmp_path / "data"
    script = (
        "import sys, time; from pathlib import Path; from proxy.journal import JournalWriter;"
        "from tests.fakes.records import closing, opening;"
        "journal = JournalWriter(Path(sys.argv[1]));"
        "[journal.append(opening(n)) for n in range(10)];"
        "[journal.append(closing(n)) for n in range(7)];"
        "print('ready', flush=True); time.sleep(60)"
    )
    start(database)
    command = [sys.executable, "-c", script, str(data / "journal")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:  # noqa: S603
        assert worker.stdout
        worker.stdout.readline()
        wait_for(lambda: calls(database)[0] == 7)
        time.sleep(0.5)
        assert calls(database)[0] == 7
        worker.kill()
    wait_for(lambda: calls(database)[0] == 10)
    outcomes = fetch(database, "SELECT outcome FROM user_api_usage ORDER BY event_id")
    assert [row["outcome"] for row in outcomes] == ["ok"] * 7 + ["interrupted"] * 3
    wait_for(lambda: not list(data.glob("journal/*.journal")))


def test_a_second_recorder_waits_for_the_first(
    tmp_path: Path, database: str, start: Callable[[str], Process]
) -> None:
    """It says so once, does nothing, and takes over when the first is gone."""
    with journal_of(tmp_path) as journal:
        first = start(database)
        journal.append(closing(1))
        wait_for(lambda: calls(database)[0] == 1)
        second = start(database)
        wait_for(second.events)
        time.sleep(2.2)
        assert second.events() == ["another recorder has the data directory, waiting"]
        first.end(signal.SIGKILL)
        journal.append(closing(2))
        wait_for(lambda: calls(database)[0] == 2)
        third = start(database)
        wait_for(third.events)
        assert third.end() == 0
        assert second.end() == 0


def test_the_database_may_go_and_come_back(
    tmp_path: Path, open_directory: Path, start: Callable[[str], Process]
) -> None:
    """Calls are kept meanwhile; the log says once that it went, and once that it is back."""
    server = EmbeddedPostgres(open_directory, settings={"fsync": "off"})
    dsn = server.start()
    try:
        with journal_of(tmp_path) as journal:
            recorder = start(dsn)
            journal.append(closing(1))
            wait_for((tmp_path / "data" / "recorder.json").exists)
            wait_for(lambda: fetch(dsn, "SELECT to_regclass('usage_by_month')::text AS t")[0]["t"])
            wait_for(lambda: calls(dsn)[0] == 1)
            server.stop()
            journal.append(closing(2))
            wait_for(lambda: state_of(tmp_path)["database_reachable"] is False)
            journal.append(closing(3))
            wait_for(lambda: state_of(tmp_path)["lag_seconds"] > 1)
            server.start()
            wait_for(lambda: calls(dsn) == (3, 3), seconds=10)
            assert recorder.end() == 0
    finally:
        server.stop()
    assert recorder.events() == [
        "database unreachable, calls wait in the journal",
        "database reachable again",
    ]


def test_it_may_start_before_its_database(
    tmp_path: Path, open_directory: Path, start: Callable[[str], Process]
) -> None:
    """Machines start things in any order."""
    server = EmbeddedPostgres(open_directory, settings={"fsync": "off"})
    dsn = server.start()
    server.stop()
    try:
        with journal_of(tmp_path) as journal:
            journal.append(closing(1))
            recorder = start(dsn)
            wait_for(recorder.events)
            server.start()
            wait_for(lambda: fetch(dsn, "SELECT to_regclass('usage_by_month')::text AS t")[0]["t"])
            wait_for(lambda: calls(dsn) == (1, 1))
            assert recorder.end() == 0
    finally:
        server.stop()


def test_a_time_zone_that_cannot_be_had_stops_no_recording(
    tmp_path: Path, database: str, start: Callable[[str], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums of a dropped month cannot be made anew; the days stay where they were."""
    gone = "DELETE FROM user_api_usage RETURNING outcome"
    with journal_of(tmp_path) as journal:
        journal.append(closing(1))
        first = start(database)
        wait_for(lambda: has_rows(database, 1))
        assert first.end() == 0
        assert len(fetch(database, gone)) == 1
        monkeypatch.setenv("METER_REPORT_TIMEZONE", "Europe/Berlin")
        second = start(database)
        journal.append(closing(2))
        wait_for(lambda: has_rows(database, 1))
        assert second.end() == 0
    assert second.events() == ["report time zone not changed"]


def test_it_leaves_quickly_without_a_database(
    tmp_path: Path, start: Callable[[str], Process]
) -> None:
    """SIGTERM must not wait for what does not come back."""
    recorder = start("postgresql://nobody@127.0.0.1:1/nothing")
    wait_for(recorder.events)
    assert recorder.end() == 0
    assert (tmp_path / "data" / "recorder.json").exists()


def test_a_stop_while_it_starts_waits_for_what_is_there(tmp_path: Path, database: str) -> None:
    """`serve` may be stopped as soon as it is started, by somebody who then looks at the ledger."""
    reader, writer = os.pipe()
    child = Child(
        name="recorder",
        command=[sys.executable, "-m", "proxy", "recorder"],
        environment=os.environ
        | {"METER_DATA_DIR": str(tmp_path / "data"), "METER_DATABASE_URL": database},
        blocks_sigterm=True,
    )
    with journal_of(tmp_path) as journal:
        journal.append_many([opening(1), closing(1)])
        assert child.start(0.0, lifeline=reader) is None
        child.signal(signal.SIGTERM)
        child.wait(60)
    assert not child.running
    assert calls(database) == (1, 1)
    os.close(reader)
    os.close(writer)


def test_without_a_database_setting_it_says_what_it_needs(tmp_path: Path) -> None:
    """Alone, it has no Postgres of its own."""
    with pytest.raises(ConfigurationError, match="METER_DATABASE_URL"):
        run_recorder(Settings(data_dir=tmp_path))


def state_of(tmp_path: Path) -> dict[str, Any]:
    """Return what the recorder last said of itself."""
    state: dict[str, Any] = json.loads((tmp_path / "data" / "recorder.json").read_bytes())
    return state
