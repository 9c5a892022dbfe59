import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs
from typing_extensions import override

from proxy.core.claims import Claim, Use
from proxy.core.gaps import GapNote
from proxy.core.model import AnswerUnits, Closing, Container, Cost, LedgerRow, Lines, Sighting
from proxy.core.pricelist import read_catalog
from proxy.core.pricing import PriceBook
from proxy.core.records import segment_name
from proxy.core.settling import Noted
from proxy.database import prepare
from proxy.deferring import Price
from proxy.errors import DatabaseError, RowsRefusedError
from proxy.heartbeat import FILE_NAME
from proxy.journal import JournalWriter
from proxy.ledger import Columns, InsertResult, Ledger
from proxy.pricefile import PriceFile, read_document
from proxy.recording import Recorder
from proxy.resources import resource
from proxy.rollups import Period, findings
from proxy.seals import gaps
from tests.conftest import at
from tests.fakes.records import USAGE, closing, opening

PRICING = resource("pricing.yaml")
COST = Decimal("0.00000885")  # 19 tokens at 0.15 and 10 at 0.60 dollars a million


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[JournalWriter]:
    """Return the journal of a worker that lives."""
    writer = JournalWriter(tmp_path / "journal", name="w1", segment_bytes=20_000)
    yield writer
    writer.close()


@pytest.fixture
def prices(tmp_path: Path) -> PriceFile:
    """Return a pricing file of the test's own."""
    return PriceFile(Path(shutil.copy(PRICING, tmp_path / "pricing.yaml")))


def now() -> datetime:
    """Return the time, as the recorder's process does."""
    return datetime.fromtimestamp(time.time(), UTC)


@asynccontextmanager
async def recorder_at_work(
    directory: Path,
    dsn: str,
    prices: PriceFile,
    *,
    clock: Callable[[], datetime] = now,
    batch_records: int = 2000,
    ledger_type: type[Ledger] = Ledger,
    **options: Any,
) -> AsyncIterator[Recorder]:
    """Run a recorder; at the end tell it to stop and wait until it has."""
    stop = asyncio.Event()
    ledger = ledger_type(dsn, report_timezone="UTC")

    async def begin() -> None:
        await prepare(dsn)

    def make() -> Recorder:
        return Recorder(
            directory,
            ledger,
            prices,
            clock,
            stop,
            begin=begin,
            batch_records=batch_records,
            **options,
        )

    recorder = await asyncio.to_thread(make)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.run())
        try:
            yield recorder
        finally:
            stop.set()
    await ledger.close()


async def rows_of(dsn: str) -> list[asyncpg.Record]:
    """Return the ledger, oldest call first."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(
            "SELECT event_id, user_id, outcome, usage_source, prompt_tokens, cost_usd,"
            " unpriced_reason, usage_problem, raw_usage, catalog_version"
            " FROM user_api_usage ORDER BY event_id"
        )
    finally:
        await connection.close()


async def rows_when(dsn: str, count: int, *, seconds: float = 10.0) -> list[asyncpg.Record]:
    """Return the ledger as soon as it has that many rows."""
    async with asyncio.timeout(seconds):
        while len(rows := await rows_of(dsn)) < count:
            await asyncio.sleep(0.02)
    return rows


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


async def test_a_row_that_the_database_refuses_is_set_aside(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """It holds up nobody, and is not lost: its facts and the reason are kept."""
    odd = replace(closing(2), outcome="odd")
    journal.append_many([closing(1), odd, closing(3)])
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        rows = await rows_when(database, 2)
    assert [row["event_id"].bytes[-1] for row in rows] == [1, 3]
    assert recorder.state.refused == 1
    path = tmp_path / "journal" / "refused.jsonl"
    kept = json.loads(await asyncio.to_thread(path.read_text))
    assert kept["refused"]["outcome"] == "odd"
    assert "outcome_is_known" in kept["reason"]


async def test_a_call_without_a_readable_id_is_set_aside(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """Such a row cannot be; still it is kept for a human."""
    odd = replace(closing(1), opening=replace(opening(1), event_id=b"\x01\x02"))
    journal.append_many([odd, closing(3)])
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        await rows_when(database, 1)
    assert (recorder.state.refused, recorder.state.faults) == (1, 1)


class BrokenBook(PriceBook):
    """A price book with a fault of ours in it."""

    @override
    def cost(self, *_: object, **__: object) -> Cost:
        """Fail in a way that nobody has thought of."""
        raise ZeroDivisionError


async def test_a_fault_of_ours_costs_the_price_and_not_the_row(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """The row says why it has no cost, and keeps the usage for a later correction."""
    catalog = read_catalog(read_document(await asyncio.to_thread(PRICING.read_bytes)))
    prices.book = BrokenBook(catalog, "broken")
    journal.append(closing(1))
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        (row,) = await rows_when(database, 1)
    assert (row["cost_usd"], row["unpriced_reason"]) == (None, "metering_fault")
    assert json.loads(row["raw_usage"])["prompt_tokens"] == 19
    assert recorder.state.faults == 1


class OddLedger(Ledger):
    """A ledger with a fault of ours in it: it cannot stand the endpoint `odd`."""

    @override
    async def insert(
        self, rows: Sequence[LedgerRow], values: Columns | None = None
    ) -> InsertResult:
        """Fail in a way that nobody has thought of."""
        if any(row.endpoint == "odd" for row in rows):
            raise ZeroDivisionError
        return await super().insert(rows, values)


async def test_a_fault_at_the_ledger_costs_one_row(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """The row that is to blame is found and set aside; all others are recorded."""
    odd = replace(closing(3), opening=replace(opening(3), endpoint="odd"))
    journal.append_many([closing(1), closing(2), odd, closing(4), closing(5)])
    async with recorder_at_work(tmp_path, database, prices, ledger_type=OddLedger) as recorder:
        rows = await rows_when(database, 4)
    assert [row["event_id"].bytes[-1] for row in rows] == [1, 2, 4, 5]
    assert recorder.state.refused == 1
    assert b'"ZeroDivisionError"' in await asyncio.to_thread(
        (tmp_path / "journal" / "refused.jsonl").read_bytes
    )


def _later(number: int, **facts: Any) -> Closing:
    """Return a call that tells of a response in the background."""
    seen = Sighting(kind="response", object_id=f"resp_{number}", model="gpt-4o-mini", **facts)
    return replace(
        closing(number),
        opening=replace(opening(number), operation_name="responses"),
        usage=None,
        usage_problem="usage_deferred",
        sightings=(seen,),
    )


async def test_what_was_made_is_charged_when_it_is_seen_done(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """Within two seconds of that, whatever was in between."""
    journal.append(_later(1, is_new=True, state="queued"))
    async with recorder_at_work(tmp_path, database, prices):
        await rows_when(database, 1)
        end = _later(1, state="completed", usage=USAGE)
        journal.append(replace(end, opening=opening(2)))
        rows = await rows_when(database, 3, seconds=2)
    assert [row["cost_usd"] for row in rows if row["cost_usd"]] == [COST]


async def test_what_was_not_seen_done_is_counted(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """For whoever watches: it costs something, and nobody knows how much."""
    journal.append_many([_later(number, is_new=True, state="queued") for number in (1, 2)])
    end = _later(1, state="completed", usage=USAGE)
    journal.append(replace(end, opening=opening(3)))
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        await until(lambda: recorder.state.open_objects == 1)


async def test_a_charge_that_the_database_refuses_holds_up_nobody(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """An id that fits no index, of a journal that somebody has written into."""
    for number in (1, 2):
        journal.append(_later(number, is_new=True, state="queued"))
        end = _later(number, state="completed", usage=USAGE)
        journal.append(replace(end, opening=opening(number + 10)))
    odd = Sighting(kind="response", object_id="x" * 600, is_new=True)
    journal.append(replace(_later(5), sightings=(odd,)))
    async with recorder_at_work(tmp_path, database, prices) as recorder:
        rows = await rows_when(database, 7)
    assert [row["cost_usd"] for row in rows if row["cost_usd"]] == [COST, COST]
    assert recorder.state.refused == 1


class OddObjects(Ledger):
    """A ledger with a fault of ours in it: it cannot stand the object `resp_2`."""

    @override
    async def settle(self, notes: Sequence[Noted], lines: Sequence[Lines], price: Price) -> int:
        """Fail in a way that nobody has thought of."""
        if any(note.object_id == "resp_2" for note in notes):
            raise ZeroDivisionError
        return await super().settle(notes, lines, price)


async def test_a_fault_in_settling_costs_one_charge(
    tmp_path: Path, database: str, prices: PriceFile, journal: JournalWriter
) -> None:
    """And never the recorder; a usage that nobody can read costs one as well."""
    for number in (1, 2, 3):
        journal.append(_later(number, is_new=True, state="queued"))
        end = _later(number, state="completed", usage=USAGE)
        journal.append(replace(end, opening=opening(number + 10)))
    odd = Sighting(kind="video", object_id="resp_3", state="completed", usage=b"{")
    journal.append(replace(closing(20), sightings=(odd,)))
    async with recorder_at_work(tmp_path, database, prices, ledger_type=OddObjects) as recorder:
        rows = await rows_when(database, 9)
    assert len([row for row in rows if row["cost_usd"] == COST]) == 3  # two, and a call of its own
    assert recorder.state.refused == 2


RAN = AnswerUnits(ran_in=(Container(container_id="cntr_1", size="1g"),))
FEE = Decimal("0.0075")  # five minutes of a gigabyte


def responded(number: int, **changes: Any) -> Closing:
    """Return a response in which code ran; it took one and a half seconds."""
    record = closing(number)
    asked = replace(record.opening, operation_name="responses", api_path="/v1/responses")
    return replace(record, opening=asked, answer_units=RAN, **changes)


def heard(number: int, response_id: str) -> Closing:
    """Return the end of a realtime response, as a socket has heard it."""
    record = closing(number)
    told = replace(record.opening, operation_name="realtime.response", api_path="/v1/realtime")
    return replace(record, opening=told, response_id=response_id, call_id="rtc_1")


async def test_what_several_calls_tell_of_is_charged_once(
    tmp_path: Path, journal: JournalWriter, prices: PriceFile, database: str
) -> None:
    """By the first of them; after a restart too, and when a batch comes again."""
    journal.append(responded(1))
    journal.append(heard(2, "a"))
    journal.append(heard(3, "b"))
    async with recorder_at_work(tmp_path, database, prices):
        await rows_when(database, 3)
    journal.append(heard(4, "a"))
    journal.append(responded(5))
    journal.append(closing(6))
    async with recorder_at_work(tmp_path, database, prices):
        await rows_when(database, 5)
    rows = await rows_of(database)
    assert [row["cost_usd"] for row in rows] == [COST + FEE, COST, COST, COST, COST]
    notes = [row["usage_problem"] for row in rows]
    assert notes == ["container_time_estimated", None, None, None, None]


class OddClaims(Ledger):
    """Finds fault with the claims of one container."""

    @override
    async def claim(self, claims: Sequence[Claim]) -> list[tuple[Use, ...] | None]:
        for claim in claims:
            if any(use.container_id == "cntr_odd" for use in claim.uses):
                raise ValueError("odd")
            if any(use.container_id == "cntr_bad" for use in claim.uses):
                raise RowsRefusedError("bad\nwith details")
        return await super().claim(claims)


async def test_a_fault_in_claiming_leaves_the_row_as_it_is(
    tmp_path: Path, journal: JournalWriter, prices: PriceFile, database: str
) -> None:
    """It is charged as if nobody else had used its container, and that is told."""
    odd = AnswerUnits(ran_in=(Container(container_id="cntr_odd", size="1g"),))
    bad = AnswerUnits(ran_in=(Container(container_id="cntr_bad", size="1g"),))
    journal.append(responded(1))
    journal.append(replace(responded(2), answer_units=odd))
    journal.append(replace(responded(3), answer_units=bad))
    journal.append(responded(4))
    with capture_logs() as logs:
        async with recorder_at_work(tmp_path, database, prices, ledger_type=OddClaims) as recorder:
            rows = await rows_when(database, 4)
    assert [row["cost_usd"] for row in rows] == [COST + FEE, COST + FEE, COST + FEE, COST]
    assert recorder.state.faults == 2
    problems = [log["problem"] for log in logs if log["event"] == "claim refused"]
    assert problems == ["ValueError", "bad"]


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


async def until(claim: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Return as soon as the claim holds."""
    async with asyncio.timeout(seconds):
        while not claim():
            await asyncio.sleep(0.02)


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
