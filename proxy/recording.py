"""The recorder: journal to charges to ledger, once for every call, whatever dies in between.

A batch is read, priced, inserted, and only then is its place in the journal remembered; the ledger
takes no row twice, so whatever is interrupted is done again. While the database is away the journal
is what waits, not the calls. Only a journal directory that cannot be read ends the recorder.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path

import structlog

from proxy.bringing import Bringer, Portion
from proxy.core.pricing import PriceBook
from proxy.errors import DatabaseError
from proxy.heartbeat import State, publish
from proxy.ledger import Ledger
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

_log = structlog.get_logger()

Check = Callable[[Period], AsyncIterator[str]]


async def _nothing_to_check(_period: Period) -> AsyncIterator[str]:
    return
    yield


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
        self._ahead: asyncio.Task[Portion] | None = None  # the next batch, while one is inserted
        self._mark: Mark | None = None  # up to there all is in the ledger
        self._is_behind = False  # there is more in the journal than fits in a batch
        self._tasks: asyncio.TaskGroup | None = None
        self._tail = Tail(directory / "journal")
        self._turn = asyncio.Lock()  # the tail is for one thread at a time
        self._stop = stop
        self._patience = Patience(stop)
        refusals = Refusals(directory / "journal" / "refused.jsonl")
        self._bringer = Bringer(ledger, prices, self._patience, refusals, self.state, clock)
        self._is_folded = asyncio.Event()  # all that is over; it may be packed
        self._told_rows = 0  # in the state that others know
        self._pending_bytes = 0  # of records on their way to the ledger
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
                work = (self._beat(), self._hurry(limit), self._check_sums(), self._pack())
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
        await self._bringer.bring(portion)
        self._pending_bytes -= batch.size
        self._mark = portion.mark or self._mark
        if not self._is_behind:
            self._limit = self._batch_records
            self._caught_up = time.monotonic()
            self._bringer.oldest = None
            await self._fold()
            await self._count_open()
            if self._is_time_to_save():
                await self._save()
        return batch

    async def _read(self, *, after_seconds: float = 0.0) -> Portion:
        await asyncio.sleep(after_seconds)
        async with self._turn:
            await self._save_mark()
            portion = await asyncio.to_thread(self._next)
        self._pending_bytes += portion.batch.size
        return portion

    def _is_time_to_save(self) -> bool:
        return time.monotonic() - self._saved >= SAVE_SECONDS

    def _next(self) -> Portion:
        """Read and price, in a thread: most of the work is done while Postgres does its own."""
        self._look_at_prices()
        batch = self._tail.read(self._limit)
        mark = self._tail.mark() if self._is_time_to_save() else None
        return self._bringer.prepared(batch, self._prices.book, mark)

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
            await self._bringer.count_unmetered()
            self._partitions_on = today
        if self.state.catalog_version != book.catalog_version:
            rates = list(book.rates())
            store = partial(self._ledger.store_prices, book.catalog_version, rates)
            await self._patience.insist(store)
            self.state.catalog_version = book.catalog_version

    async def _fold(self) -> None:
        """Fold one span of days that is over; where that fails, the days themselves do."""
        if time.monotonic() < self._fold_at:
            return
        folded = None
        with contextlib.suppress(DatabaseError):  # whoever inserts next will notice
            folded = await self._ledger.fold_span()
            if folded is None:
                self._is_folded.set()
        self._fold_at = time.monotonic() + (FOLD_SECONDS if folded is None else 0)

    async def _count_open(self) -> None:
        """Count, now and then, what is billed when it is done and was not seen done."""
        if time.monotonic() < self._count_at:
            return
        with contextlib.suppress(DatabaseError):  # as above
            self.state.open_objects = await self._ledger.open_objects()
        self._count_at = time.monotonic() + COUNT_SECONDS

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

    async def _pack(self) -> None:
        """Pack what was folded, while recording goes on; where that fails, the folded sums do."""
        told = None  # of a problem that stays
        while True:
            await self._is_folded.wait()
            self._is_folded.clear()
            problem = None
            try:
                async for _ in self._ledger.pack_spans():
                    pass
            except DatabaseError as exc:
                problem = str(exc)
            if problem not in {None, told}:
                _log.warning("sums not packed", problem=problem)
            told = problem

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
        oldest = self._bringer.oldest or state.time
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
