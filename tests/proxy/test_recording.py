import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from proxy.core.gaps import GapNote
from proxy.core.records import segment_name
from proxy.errors import DatabaseError
from proxy.heartbeat import FILE_NAME
from proxy.journal import JournalWriter
from proxy.pricefile import PriceFile
from proxy.resources import resource
from proxy.rollups import Period, findings
from proxy.seals import gaps
from tests.conftest import at
from tests.fakes.recorders import now, recorder_at_work, rows_of, rows_when, until
from tests.fakes.records import closing, opening

PRICING = resource("pricing.yaml")
COST = Decimal("0.00000885")  # 19 tokens at 0.15 and 10 at 0.60 dollars a million


async def test_a_call_that_ends_has_its_row_within_two_seconds(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """That is what the admins were promised."""
    async with recorder_at_work(tmp_path, database, prices):
        await asyncio.sleep(0.5)
        journal.append(opening(1))
        journal.append(closing(1))
        (row,) = await rows_when(database, 1, seconds=2)
    assert row["event_id"].bytes == opening(1).event_id
    assert (row["outcome"], row["usage_source"], row["prompt_tokens"]) == ("ok", "reported", 19)
    assert (row["cost_usd"], row["user_id"]) == (COST, "ada")


async def test_a_backlog_is_recorded_in_batches_and_cleared_away(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """After an outage the journal may be long; afterwards it is short again."""
    for number in range(500):
        journal.append_many([opening(number), closing(number)])
    async with recorder_at_work(tmp_path, database, prices, batch_records=70) as recorder:
        await rows_when(database, 500)
    rows = await rows_of(database)
    assert [row["event_id"].bytes for row in rows] == [opening(n).event_id for n in range(500)]
    assert (recorder.state.rows, recorder.state.refused) == (500, 0)
    assert len(await asyncio.to_thread(lambda: list(tmp_path.glob("journal/*.journal")))) == 1


async def test_what_was_journalled_before_the_stop_is_recorded(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """Workers stop first; their last calls must not wait for the next start."""
    async with recorder_at_work(tmp_path, database, prices, batch_records=10) as recorder:
        await rows_when(database, 0)
        for number in range(100):
            journal.append(closing(number))
    assert len(await rows_of(database)) == 100
    assert recorder.state.lag_bytes == 0


async def test_a_batch_that_comes_again_changes_nothing(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """Whoever dies between ledger and checkpoint repeats the batch."""
    journal.append_many([closing(number) for number in range(20)])
    async with recorder_at_work(tmp_path, database, prices):
        await rows_when(database, 20)
    await asyncio.to_thread((tmp_path / "journal" / "checkpoint").unlink)
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        journal.append(closing(20))
        await rows_when(database, 21)
    assert recorder.state.rows == 1
    connection = await asyncpg.connect(database)
    assert await connection.fetchval("SELECT sum(calls) FROM usage_by_quarter_hour") == 21
    await connection.close()


async def test_calls_of_a_dead_worker_become_rows(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """They were sent upstream: somebody may have to pay for them."""
    journal.append_many([opening(1), opening(2), closing(2)])
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        assert len(await rows_when(database, 1)) == 1
        await asyncio.to_thread(journal.close)
        first, second = await rows_when(database, 2)
    assert (first["outcome"], second["outcome"]) == ("interrupted", "ok")
    assert (first["usage_source"], first["cost_usd"]) == ("unavailable", None)
    assert recorder.state.interrupted == 1


async def test_without_a_database_it_leaves_when_told(
    tmp_path: Path, prices: PriceFile, journal: JournalWriter, database: str
) -> None:
    """The journal keeps everything for the next start."""
    journal.append(closing(1))
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    async with recorder_at_work(tmp_path, nowhere, prices) as recorder:
        await until(lambda: recorder.state.database_reachable is False)
    assert "127.0.0.1:1/nothing does not answer" in str(recorder.state.database_problem)
    async with recorder_at_work(tmp_path, database, prices):
        await rows_when(database, 1)


async def test_a_database_that_refuses_to_begin_is_an_error(
    tmp_path: Path, prices: PriceFile, database: str
) -> None:
    """A human has to do something about it, so it is said at once."""
    dsn = at(database, "which_is_not_there")
    with pytest.RaisesGroup(pytest.RaisesExc(DatabaseError, match="CREATE DATABASE")):
        async with recorder_at_work(tmp_path, dsn, prices):
            await asyncio.sleep(5)


async def test_files_that_cannot_be_written_are_told_and_stop_nothing(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """The rows are what matters; a checkpoint only saves work."""
    for name in ("checkpoint", "refused.jsonl"):
        await asyncio.to_thread((tmp_path / "journal" / name).mkdir)
    journal.append_many([replace(closing(1), outcome="odd"), closing(2)])
    with capture_logs() as logs:
        async with recorder_at_work(tmp_path, database, prices) as recorder:
            await rows_when(database, 1)
            await until(lambda: recorder.state.journal_problem is not None)
            journal.append(closing(3))
            await rows_when(database, 2)
            await asyncio.sleep(1.2)
    assert "cannot write the checkpoint" in str(recorder.state.journal_problem)
    events = [entry["event"] for entry in logs if entry["log_level"] == "error"]
    assert events == ["row refused", "refused row not kept", "checkpoint not written"]


async def test_new_prices_are_used_without_a_restart(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """A file with a mistake changes nothing, and the state says so."""
    path = tmp_path / "pricing.yaml"
    good = await asyncio.to_thread(path.read_text)
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        journal.append(closing(1))
        (first,) = await rows_when(database, 1)
        await asyncio.to_thread(path.write_text, "models: [")
        await until(lambda: recorder.state.prices_problem is not None)
        await asyncio.to_thread(path.write_text, good + "\n# changed\n")
        await until(lambda: recorder.state.catalog_version not in {None, first["catalog_version"]})
        journal.append(closing(2))
        _, second = await rows_when(database, 2)
    assert recorder.state.prices_problem is None
    assert first["cost_usd"] == second["cost_usd"] == COST
    assert second["catalog_version"] == recorder.state.catalog_version
    connection = await asyncpg.connect(database)
    versions = await connection.fetch("SELECT DISTINCT catalog_version FROM price_rate")
    assert len(versions) == 2
    await connection.close()


async def test_partitions_are_made_every_day(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """The recorder may run for months; the months to come must be there before they do."""
    connection = await asyncpg.connect(database)
    days = [now()]
    async with recorder_at_work(tmp_path, database, prices, clock=lambda: days[-1]):
        journal.append(closing(1))
        await rows_when(database, 1)
        last = await connection.fetchval(
            "SELECT max(inhrelid::regclass::text) FROM pg_inherits"
            " WHERE inhparent = 'user_api_usage'::regclass"
            " AND inhrelid <> 'user_api_usage_default'::regclass"
        )
        await connection.execute(f"DROP TABLE {last}")
        days.append(days[0] + timedelta(days=1))
        async with asyncio.timeout(10):
            while await connection.fetchval("SELECT to_regclass($1::text)", last) is None:
                await asyncio.sleep(0.02)
    await connection.close()


async def test_days_that_are_over_are_folded(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """A dashboard need not read every day of a long range."""
    journal.append(closing(1))
    connection = await asyncpg.connect(database)
    async with recorder_at_work(tmp_path, database, prices), asyncio.timeout(30):
        while await connection.fetchval("SELECT count(*) FROM spans") < 4:
            await asyncio.sleep(0.05)
    spans = await connection.fetch("SELECT span, users FROM spans")
    await connection.close()
    assert {tuple(span) for span in spans} >= {
        ("day", 1),
        ("pentad", 1),
        ("dekad", 1),
        ("month", 1),
    }


async def test_what_is_folded_is_packed_while_calls_are_recorded(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """A row does not wait for it, however long it takes."""
    journal.append(closing(1))
    connection = await asyncpg.connect(database)
    listed = "SELECT count(*) FROM spans WHERE span IN ('packed', 'hours')"
    async with recorder_at_work(tmp_path, database, prices), asyncio.timeout(30):
        while await connection.fetchval(listed) < 5:
            await asyncio.sleep(0.05)
    journal.append(closing(2))
    async with connection.transaction():
        await connection.execute("LOCK TABLE usage_packed_span IN SHARE MODE")  # it cannot end
        async with recorder_at_work(tmp_path, database, prices), asyncio.timeout(30):
            await rows_when(database, 2)
    await connection.close()


async def test_sums_that_cannot_be_packed_stop_nothing(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """Somebody is told, once, and calls are recorded all the same."""
    connection = await asyncpg.connect(database)
    await connection.execute("ALTER TABLE usage_packed_span RENAME TO elsewhere")
    await connection.close()
    journal.append(closing(1))
    with capture_logs() as logs:
        async with recorder_at_work(tmp_path, database, prices) as recorder:
            await until(lambda: "sums not packed" in {entry["event"] for entry in logs})
            for _ in range(2):  # as every minute
                recorder._is_folded.set()  # noqa: SLF001
                await until(lambda: not recorder._is_folded.is_set())  # noqa: SLF001
            journal.append(closing(2))
            await rows_when(database, 2)
    assert [entry["event"] for entry in logs].count("sums not packed") == 1


async def test_wrong_sums_of_the_last_days_are_told(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """The recorder looks at them by itself, once a day."""

    def tomorrow() -> datetime:
        return datetime(2026, 8, 30, tzinfo=UTC)  # the calls are of the 29th

    journal.append(closing(1))
    async with recorder_at_work(tmp_path, database, prices):
        await rows_when(database, 1)
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE usage_by_user_day SET calls = 2")
    await connection.close()
    check = partial(findings, database)
    with capture_logs() as logs:
        async with recorder_at_work(
            tmp_path, database, prices, clock=tomorrow, check=check, first_check_seconds=0.1
        ) as recorder:
            await until(lambda: recorder.state.sums_checked is not None)
    assert "calls is 2 and should be 1" in str(recorder.state.sums_problem)
    told = {entry["event"] for entry in logs if entry["log_level"] == "error"}
    assert told == {"sum is wrong"}


async def test_what_is_known_of_rows_and_failures_is_counted(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """For metrics: what has no price, and why nothing could be inserted."""
    odd = b'{"prompt_tokens":1,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":5}}'
    unknown = replace(closing(2), usage=odd)
    journal.append_many([closing(1), unknown])
    connection = await asyncpg.connect(database)
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        await rows_when(database, 2)
        await until(lambda: recorder.state.unpriced == 1)
        await connection.execute("ALTER TABLE usage_by_day RENAME TO usage_by_night")
        journal.append(closing(3))
        await until(lambda: recorder.state.insert_failures.get("refused", 0) > 0)
        await until(lambda: recorder.state.backlog_seconds > 1)
        assert recorder.state.journal_bytes > 0
        await connection.execute("ALTER TABLE usage_by_night RENAME TO usage_by_day")
        await rows_when(database, 3)
        await until(lambda: recorder.state.backlog_seconds == 0)
    await connection.close()


async def test_the_state_is_there_for_others(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """Health pages and metrics of other processes read it."""
    garbage = tmp_path / "journal" / segment_name("gone", 1)
    await asyncio.to_thread(garbage.write_bytes, b"garbage")
    journal.append_many([opening(7), closing(1)])
    with capture_logs() as logs:
        async with recorder_at_work(tmp_path, database, prices):
            await rows_when(database, 1)
            await asyncio.sleep(1.2)
            state: dict[str, Any] = json.loads(
                await asyncio.to_thread((tmp_path / FILE_NAME).read_bytes)
            )
    assert (state["rows"], state["open_calls"], state["skipped_bytes"]) == (1, 1, 7)
    assert (state["lag_bytes"], state["database_reachable"]) == (0, True)
    assert state["lag_seconds"] < 2
    assert state["last_commit"] <= state["time"]
    assert {"event": "journal bytes skipped", "skipped_bytes": 7, "log_level": "error"} in logs


async def test_calls_that_found_no_room_are_stated_as_a_count(
    tmp_path: Path, database: str, prices: PriceFile
) -> None:
    """Also when their worker was killed, and after the recorder's next start."""
    moment = now().replace(microsecond=0)
    note = GapNote()
    note.lost(3, moment)
    note.waits(2, moment + timedelta(seconds=9))
    directory = tmp_path / "journal"
    directory.mkdir()
    (directory / "w1-1-1-a.lock").write_bytes(note.content())
    with capture_logs() as log:
        async with recorder_at_work(tmp_path, database, prices) as recorder:
            async with asyncio.timeout(10):
                while recorder.state.unmetered_calls != 5:
                    await asyncio.sleep(0.02)
        async with recorder_at_work(tmp_path, database, prices) as recorder:
            async with asyncio.timeout(10):
                while recorder.state.unmetered_calls != 5:
                    await asyncio.sleep(0.02)
    assert not (directory / "w1-1-1-a.lock").exists()
    (said,) = [entry for entry in log if entry["event"] == "calls not metered"]
    assert (said["calls"], said["since"]) == (5, str(moment))
    today = moment.date()
    period = Period(first=today - timedelta(days=1), past=today + timedelta(days=2))
    (sentence,) = await gaps(database, period)
    assert sentence.startswith("5 calls were not metered between ")
    assert sentence.endswith(": w1-1-1-a could not write them down")
    last_year = Period(first=today - timedelta(days=400), past=today - timedelta(days=300))
    assert await gaps(database, last_year) == []
