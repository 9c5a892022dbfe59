"""The recorder: journal to charges to ledger, once for every call, whatever dies in between.

A batch is read, priced, inserted, and only then is its place in the journal remembered; the ledger
takes no row twice, so whatever is interrupted is done again. While the database is away the journal
is what waits, not the calls. What cannot be priced gets a row without a cost; what the database
refuses for its data is set aside. Only a journal directory that cannot be read ends the recorder.
"""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import structlog

from proxy.core.charging import charge
from proxy.core.claims import Claim, Use, claim_of, counted
from proxy.core.model import Closing, LedgerRow, Lines, UsageSource
from proxy.core.pricing import PriceBook
from proxy.core.settling import Noted, noted, settled
from proxy.core.storing import columns
from proxy.deferring import Due
from proxy.errors import DatabaseError, MeterError, RowsRefusedError
from proxy.heartbeat import State, publish
from proxy.ledger import Columns, InsertResult, Ledger
from proxy.pricefile import PriceFile
from proxy.refusals import Refusals
from proxy.rollups import Period
from proxy.tailing import Batch, Mark, Tail
from proxy.waiting import Patience, StoppedError, pause

BATCH_RECORDS = 2000
BACKLOG_RECORDS = 12_000  # of a batch while there is a backlog
POLL_SECONDS = 0.25  # what comes meanwhile is one batch, not dozens
AHEAD_SECONDS = 0.01  # into an insert; what is sent has been encoded by then
SAVE_SECONDS = 1.0
BEAT_SECONDS = 1.0
LOOK_SECONDS = 1.0  # at the pricing file
COUNT_SECONDS = 15.0  # between two counts of what is not settled yet
FOLD_SECONDS = 60.0  # between two looks for days that are over
CHECK_SECONDS = 86_400.0  # between two checks of the sums
FIRST_CHECK_SECONDS = 300.0  # after the start
CHECKED_DAYS = 2  # before today
MOST_TOLD = 10  # findings, in the log
LEAVE_SECONDS = 10.0  # after it was told to stop

_FAULT = "metering_fault"
_log = structlog.get_logger()

Check = Callable[[Period], AsyncIterator[str]]


async def _nothing_to_check(_period: Period) -> AsyncIterator[str]:
    return
    yield


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Portion:
    """A batch of the journal on its way: its rows, their columns, and what priced them."""

    batch: Batch
    rows: list[LedgerRow]
    values: Columns | None  # None: they cannot be made of all rows at once
    notes: list[Noted]
    claims: dict[int, tuple[Closing, Claim]]  # by row: what others may charge as well
    book: PriceBook
    mark: Mark | None  # the place behind it, where it is time to remember one


class Recorder:
    """Records the journal below a data directory; see `run`."""

    def __init__(
        self,
        directory: Path,
        ledger: Ledger,
        prices: PriceFile,
        clock: Callable[[], datetime],
        stop: asyncio.Event,
        *,
        begin: Callable[[], Awaitable[object]],  # brings the database into shape
        check: Check = _nothing_to_check,
        first_check_seconds: float = FIRST_CHECK_SECONDS,
        batch_records: int = BATCH_RECORDS,
    ) -> None:
        self.state = State(time=clock())
        self._directory = directory
        self._ledger = ledger
        self._prices = prices
        self._clock = clock
        self._begin = begin
        self._check = check
        self._check_seconds = first_check_seconds
        self._batch_records = self._limit = batch_records
        self._ahead: asyncio.Task[_Portion] | None = None  # the next batch, while one is inserted
        self._mark: Mark | None = None  # up to there all is in the ledger
        self._is_behind = False  # there is more in the journal than fits in a batch
        self._tasks: asyncio.TaskGroup | None = None
        self._tail = Tail(directory / "journal")
        self._turn = asyncio.Lock()  # the tail is for one thread at a time
        self._refusals = Refusals(directory / "journal" / "refused.jsonl")
        self._stop = stop
        self._patience = Patience(stop)
        self._told_rows = 0  # in the state that others know
        self._pending_bytes = 0  # of records on their way to the ledger
        self._oldest: datetime | None = None  # call on its way to the ledger, in a backlog
        self._partitions_on: date | None = None
        self._save_problem: str | None = None
        self._caught_up = self._saved = self._looked = time.monotonic()
        self._fold_at = self._count_at = self._looked

    async def run(self) -> None:
        """Record until told to stop; raise DatabaseError where the database refuses to begin."""
        failure: DatabaseError | None = None
        try:
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                work = (self._beat(), self._hurry(limit), self._check_sums())
                beside = [tasks.create_task(each) for each in work]
                try:
                    await self._work()
                except StoppedError:
                    _log.warning("stopped without the database, the journal keeps what is left")
                except DatabaseError as exc:
                    failure = exc
                for task in beside:
                    task.cancel()
        except TimeoutError:
            _log.warning("stopped in a hurry, the journal keeps what is left")
        await self._write_state()
        if failure is not None:
            raise failure

    async def _work(self) -> None:
        await self._patience.insist(self._begin, refusable=True)
        while not self._stop.is_set():
            await self._step()
            if not self._is_behind:
                await pause(self._stop, POLL_SECONDS)
        await self._step()
        while self._is_behind:
            await self._step()
        await self._save()

    async def _step(self) -> Batch:
        """Bring the next batch into the ledger, and read the one after it meanwhile."""
        ahead, self._ahead = self._ahead, None
        portion = await (ahead or self._read())
        batch = portion.batch
        self._is_behind = not batch.room(self._limit)
        if self._is_behind and self._tasks and not self._stop.is_set():
            self._limit = max(self._batch_records, min(2 * self._limit, BACKLOG_RECORDS))
            self._ahead = self._tasks.create_task(self._read(after_seconds=AHEAD_SECONDS))
        await self._keep_ready(portion.book)
        await self._bring(portion)
        self._mark = portion.mark or self._mark
        if not self._is_behind:
            self._limit = self._batch_records
            self._caught_up = time.monotonic()
            self._oldest = None
            await self._fold()
            await self._count_open()
            if self._is_time_to_save():
                await self._save()
        return batch

    async def _read(self, *, after_seconds: float = 0.0) -> _Portion:
        await asyncio.sleep(after_seconds)
        async with self._turn:
            await self._save_mark()
            portion = await asyncio.to_thread(self._next)
        self._pending_bytes += portion.batch.size
        return portion

    def _is_time_to_save(self) -> bool:
        return time.monotonic() - self._saved >= SAVE_SECONDS

    async def _bring(self, portion: _Portion) -> None:
        batch = portion.batch
        if portion.claims:
            portion = await self._claim(portion)
        if portion.rows:
            self._oldest = min(row.created_at for row in portion.rows)
            insert = partial(self._insert, portion.rows, portion.values)
            await self._count(await self._patience.insist(insert))
            self._tell_apart(portion.rows)
        if portion.notes or batch.lines:
            await self._patience.insist(partial(self._settle, portion.notes, batch.lines))
        if batch.gaps:
            await self._patience.insist(partial(self._ledger.note_gaps, batch.gaps))
            await self._count_unmetered()
            for gap in batch.gaps:
                span = {"since": str(gap.since), "until": str(gap.until)}
                _log.error("calls not metered", worker=gap.writer, calls=gap.calls, **span)
        self._pending_bytes -= batch.size
        if batch.abandoned:
            self.state.interrupted += len(batch.abandoned)
            _log.warning("calls of a dead worker recorded", calls=len(batch.abandoned))

    async def _claim(self, portion: _Portion) -> _Portion:
        """Leave out what others have charged, and price what is left to be charged here."""
        claims = [claim for _, claim in portion.claims.values()]
        answers = await self._patience.insist(partial(self._claimed, claims))
        rows: dict[int, LedgerRow | None] = dict(enumerate(portion.rows))
        for (place, (closing, _)), uses in zip(portion.claims.items(), answers, strict=True):
            if uses is None:
                rows[place] = None
            elif uses and closing.answer_units is not None:
                units = counted(closing.answer_units, uses)
                closing = msgspec.structs.replace(closing, answer_units=units)  # noqa: PLW2901
                rows[place] = self._charged(closing, portion.book)
        left = [row for row in rows.values() if row is not None]
        return dataclasses.replace(portion, rows=left, values=None)

    async def _claimed(self, claims: Sequence[Claim]) -> list[tuple[Use, ...] | None]:
        """Claim; what is to blame for a fault is charged as if nobody else did."""
        try:
            return await self._ledger.claim(claims)
        except RowsRefusedError as exc:
            problem = str(exc).partition("\n")[0]
        except MeterError:
            raise
        except Exception as exc:  # noqa: BLE001  one claim must not hold up all others
            problem = type(exc).__name__
        if len(claims) == 1:
            self.state.faults += 1
            _log.error("claim refused", problem=problem, event_id=claims[0].event_id.hex)
            return [()]
        middle = len(claims) // 2
        return [*await self._claimed(claims[:middle]), *await self._claimed(claims[middle:])]

    def _next(self) -> _Portion:
        """Read and price, in a thread: most of the work is done while Postgres does its own."""
        self._look_at_prices()
        batch = self._tail.read(self._limit)
        lost = [Closing(opening=opening, outcome="interrupted") for opening in batch.abandoned]
        book = self._prices.book
        rows: list[LedgerRow] = []
        notes: list[Noted] = []
        claims: dict[int, tuple[Closing, Claim]] = {}
        for closing in batch.closings + lost:
            row = self._charged(closing, book)
            if row is None:
                continue
            if (claim := claim_of(closing, row)) is not None:
                claims[len(rows)] = closing, claim
            rows.append(row)
            notes += noted(closing, row) if closing.sightings else ()
        values = None
        with contextlib.suppress(Exception):  # `_insert` finds the row that is to blame
            values = columns(rows)
        mark = self._tail.mark() if self._is_time_to_save() else None
        return _Portion(
            batch=batch,
            rows=rows,
            values=values,
            notes=notes,
            claims=claims,
            book=book,
            mark=mark,
        )

    def _charged(self, closing: Closing, book: PriceBook) -> LedgerRow | None:
        """Return the row; a fault of ours costs its usage, or (None) sends it to the refusals."""
        try:
            return charge(closing, book)
        except Exception as exc:  # noqa: BLE001  one call must not hold up all others
            fault = type(exc).__name__
        self.state.faults += 1
        _log.error("metering fault", error_type=fault, event_id=closing.opening.event_id.hex())
        bare = msgspec.structs.replace(closing, usage=None, usage_problem=_FAULT)
        try:
            row = charge(bare, book)
        except Exception as exc:  # noqa: BLE001  as above
            self._refuse(closing, type(exc).__name__)
            return None
        return dataclasses.replace(row, raw_usage=closing.usage, unpriced_reason=_FAULT)

    def _look_at_prices(self) -> None:
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        if self._prices.reload_if_changed():
            _log.info("prices reloaded", catalog_version=self._prices.book.catalog_version)
        if self._prices.problem not in {None, self.state.prices_problem}:
            _log.error("pricing file unusable, prices kept", problem=self._prices.problem)
        self.state.prices_problem = self._prices.problem

    async def _keep_ready(self, book: PriceBook) -> None:
        """Have partitions for the months to come, and in the database the prices that are used."""
        if self._partitions_on != (today := self._clock().date()):
            await self._patience.insist(self._ledger.ensure_partitions)
            await self._patience.insist(self._ledger.forget)
            await self._count_unmetered()
            self._partitions_on = today
        if self.state.catalog_version != book.catalog_version:
            rates = list(book.rates())
            store = partial(self._ledger.store_prices, book.catalog_version, rates)
            await self._patience.insist(store)
            self.state.catalog_version = book.catalog_version

    async def _count_unmetered(self) -> None:
        self.state.unmetered_calls = await self._patience.insist(self._ledger.unmetered_calls)

    async def _fold(self) -> None:
        """Fold one span of days that is over; where that fails, the days themselves do."""
        if time.monotonic() < self._fold_at:
            return
        folded = None
        with contextlib.suppress(DatabaseError):  # whoever inserts next will notice
            folded = await self._ledger.fold_span()
        self._fold_at = time.monotonic() + (FOLD_SECONDS if folded is None else 0)

    async def _count_open(self) -> None:
        """Count, now and then, what is billed when it is done and was not seen done."""
        if time.monotonic() < self._count_at:
            return
        with contextlib.suppress(DatabaseError):  # as above
            self.state.open_objects = await self._ledger.open_objects()
        self._count_at = time.monotonic() + COUNT_SECONDS

    async def _insert(
        self, rows: Sequence[LedgerRow], values: Columns | None = None
    ) -> InsertResult:
        """Insert; where that fails for a fault of ours, find the rows that are to blame."""
        try:
            return await self._ledger.insert(rows, values)
        except MeterError:
            raise
        except Exception as exc:  # noqa: BLE001  one row must not hold up all others
            if len(rows) == 1:
                return InsertResult(refused=((rows[0], type(exc).__name__),))
        middle = len(rows) // 2
        first, second = await self._insert(rows[:middle]), await self._insert(rows[middle:])
        return InsertResult(
            inserted=first.inserted + second.inserted, refused=first.refused + second.refused
        )

    async def _settle(self, notes: Sequence[Noted], lines: Sequence[Lines]) -> None:
        """Charge what came to its end; what is to blame for a fault is found, and left."""
        try:
            self.state.rows += await self._ledger.settle(notes, lines, self._price)
        except RowsRefusedError as exc:
            problem = str(exc).partition("\n")[0]
        except MeterError:
            raise
        except Exception as exc:  # noqa: BLE001  one object must not hold up all others
            problem = type(exc).__name__
        else:
            return
        if len(notes) + len(lines) == 1:
            self.state.refused += 1
            _log.error("charge refused", problem=problem)
            return
        for line in lines:
            await self._settle((), (line,))
        for note in notes:
            await self._settle((note,), ())

    def _price(self, due: Due) -> list[LedgerRow]:
        """Return the rows that charge an object; a fault of ours leaves a part without a row."""
        rows = []
        for part in due.parts:
            try:
                rows.append(settled(due.maker, due.object_id, part, self._prices.book))
            except Exception as exc:  # noqa: BLE001  one object must not hold up all others
                self.state.faults += 1
                maker = due.maker.event_id.hex()
                _log.error("metering fault", error_type=type(exc).__name__, event_id=maker)
        return rows

    def _tell_apart(self, rows: Sequence[LedgerRow]) -> None:
        """Count what is not simply known of rows that are in the ledger."""
        for row in rows:
            if row.usage_source == UsageSource.ESTIMATED:
                self.state.estimated += 1
            if row.usage_source != UsageSource.UNAVAILABLE and (
                row.cost_usd is None or row.unpriced_reason is not None
            ):
                self.state.unpriced += 1

    async def _count(self, result: InsertResult) -> None:
        self.state.rows += result.inserted
        self.state.last_commit = self._clock()
        for row, reason in result.refused:
            await asyncio.to_thread(self._refuse, row, reason)

    def _refuse(self, refused: LedgerRow | Closing, reason: str) -> None:
        self.state.refused += 1
        _log.error("row refused", problem=reason.partition("\n")[0])  # details may hold facts
        try:
            self._refusals.keep(refused, reason, at=self._clock())
        except OSError as exc:
            _log.error("refused row not kept", problem=exc.strerror)

    async def _save(self) -> None:
        """Remember the present place; all that was read is in the ledger."""
        async with self._turn:
            self._mark = await asyncio.to_thread(self._tail.mark) or self._mark
            await self._save_mark()
            self._saved = time.monotonic()

    async def _save_mark(self) -> None:
        """Remember the place up to which all is in the ledger, unless that was done."""
        mark, self._mark = self._mark, None
        if mark is None:
            return
        problem = None
        try:
            await asyncio.to_thread(self._tail.save, mark)
        except OSError as exc:
            problem = f"cannot write the checkpoint: {exc.strerror}; make room"
        if problem not in {None, self._save_problem}:
            _log.error("checkpoint not written", problem=problem)
        self._save_problem = problem
        self._saved = time.monotonic()

    async def _hurry(self, limit: asyncio.Timeout) -> None:
        await self._stop.wait()
        limit.reschedule(asyncio.get_running_loop().time() + LEAVE_SECONDS)

    async def _check_sums(self) -> None:
        """Hold the sums of the last days against their rows, once a day."""
        while True:
            await asyncio.sleep(self._check_seconds)
            self._check_seconds = CHECK_SECONDS
            today = self._clock().date()
            period = Period(first=today - timedelta(days=CHECKED_DAYS), past=today)
            found = []
            try:
                async for finding in self._check(period):
                    found.append(finding)
                    if len(found) <= MOST_TOLD:
                        _log.error("sum is wrong", problem=finding)
            except DatabaseError as exc:
                _log.warning("sums not checked", problem=str(exc))
                continue
            self.state.sums_checked = self._clock()
            self.state.sums_problem = found[0] if found else None
            _log.info("sums checked", first_day=str(period.first), findings=len(found))

    async def _beat(self) -> None:
        """Tell other processes how things are, about once a second."""
        while True:
            await self._write_state()
            await asyncio.sleep(BEAT_SECONDS)

    async def _write_state(self) -> None:
        state = self.state
        async with self._turn:
            unread = await asyncio.to_thread(self._tail.lag_bytes)
            state.journal_bytes = await asyncio.to_thread(self._tail.disk_bytes)
            state.open_calls = self._tail.open_calls
        before, state.time = state.time, self._clock()
        passed = (state.time - before).total_seconds()
        state.rows_per_second = round((state.rows - self._told_rows) / passed, 1) if passed else 0.0
        self._told_rows = state.rows
        oldest = self._oldest or state.time
        state.backlog_seconds = max(0.0, round((state.time - oldest).total_seconds(), 3))
        state.insert_failures = self._patience.failures
        state.database_reachable = self._patience.reachable
        state.database_problem = self._patience.problem
        state.lag_bytes = unread + self._pending_bytes
        state.lag_seconds = round(time.monotonic() - self._caught_up, 3)
        if self._tail.skipped_bytes > state.skipped_bytes:
            _log.error("journal bytes skipped", skipped_bytes=self._tail.skipped_bytes)
        if self._tail.problem not in {None, state.journal_problem}:
            _log.error("journal segment unreadable", problem=self._tail.problem)
        state.skipped_bytes = self._tail.skipped_bytes
        state.journal_problem = self._tail.problem or self._save_problem
        with contextlib.suppress(OSError):  # a full disk; the next beat tries again
            await asyncio.to_thread(publish, state, self._directory)
