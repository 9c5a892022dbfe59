"""From a batch of the journal to rows of the ledger: charged, claimed, inserted, settled.

One call must not hold up all others: where a batch fails for a fault of ours, the rows that are to
blame are found by halves, and get a row without their usage, or are set aside.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import msgspec
import structlog

from proxy.core.charging import charge
from proxy.core.claims import Claim, Use, claim_of, counted
from proxy.core.model import Closing, LedgerRow, Lines, UsageSource
from proxy.core.pricing import PriceBook
from proxy.core.settling import Noted, noted, settled
from proxy.core.storing import columns
from proxy.deferring import Due
from proxy.errors import MeterError, RowsRefusedError
from proxy.heartbeat import State
from proxy.ledger import Columns, InsertResult, Ledger
from proxy.pricefile import PriceFile
from proxy.refusals import Refusals
from proxy.tailing import Batch, Mark
from proxy.waiting import Patience

_FAULT = "metering_fault"
_log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """A batch of the journal on its way: its rows, their columns, and what priced them."""

    batch: Batch
    rows: list[LedgerRow]
    values: Columns | None  # None: they cannot be made of all rows at once
    notes: list[Noted]
    claims: dict[int, tuple[Closing, Claim]]  # by row: what others may charge as well
    book: PriceBook
    mark: Mark | None  # the place behind it, where it is time to remember one


class Bringer:
    """Brings batches into the ledger, however long that takes; counts in the state what came."""

    def __init__(
        self,
        ledger: Ledger,
        prices: PriceFile,
        patience: Patience,
        refusals: Refusals,
        state: State,
        clock: Callable[[], datetime],
    ) -> None:
        self.oldest: datetime | None = None  # call on its way to the ledger, in a backlog
        self._ledger = ledger
        self._prices = prices
        self._patience = patience
        self._refusals = refusals
        self._state = state
        self._clock = clock

    def prepared(self, batch: Batch, book: PriceBook, mark: Mark | None) -> Portion:
        """Return what is to be brought: charges, and what else a batch tells. Takes its time."""
        lost = [Closing(opening=opening, outcome="interrupted") for opening in batch.abandoned]
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
        return Portion(
            batch=batch,
            rows=rows,
            values=values,
            notes=notes,
            claims=claims,
            book=book,
            mark=mark,
        )

    async def bring(self, portion: Portion) -> None:
        """Bring it into the ledger; raise StoppedError where there is no more time for that."""
        batch = portion.batch
        if portion.claims:
            portion = await self._claim(portion)
        if portion.rows:
            self.oldest = min(row.created_at for row in portion.rows)
            insert = partial(self._insert, portion.rows, portion.values)
            await self._count(await self._patience.insist(insert))
            self._tell_apart(portion.rows)
        if portion.notes or batch.lines:
            await self._patience.insist(partial(self._settle, portion.notes, batch.lines))
        if batch.gaps:
            await self._patience.insist(partial(self._ledger.note_gaps, batch.gaps))
            await self.count_unmetered()
            for gap in batch.gaps:
                span = {"since": str(gap.since), "until": str(gap.until)}
                _log.error("calls not metered", worker=gap.writer, calls=gap.calls, **span)
        if batch.abandoned:
            self._state.interrupted += len(batch.abandoned)
            _log.warning("calls of a dead worker recorded", calls=len(batch.abandoned))

    async def _claim(self, portion: Portion) -> Portion:
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
        except Exception as exc:  # noqa: BLE001  one claim must not hold up all others
            problem = _blamed(exc)
        if len(claims) == 1:
            self._state.faults += 1
            _log.error("claim refused", problem=problem, event_id=claims[0].event_id.hex)
            return [()]
        middle = len(claims) // 2
        return [*await self._claimed(claims[:middle]), *await self._claimed(claims[middle:])]

    def _charged(self, closing: Closing, book: PriceBook) -> LedgerRow | None:
        """Return the row; a fault of ours costs its usage, or (None) sends it to the refusals."""
        try:
            return charge(closing, book)
        except Exception as exc:  # noqa: BLE001  one call must not hold up all others
            fault = type(exc).__name__
        self._state.faults += 1
        _log.error("metering fault", error_type=fault, event_id=closing.opening.event_id.hex())
        bare = msgspec.structs.replace(closing, usage=None, usage_problem=_FAULT)
        try:
            row = charge(bare, book)
        except Exception as exc:  # noqa: BLE001  as above
            self._refuse(closing, type(exc).__name__)
            return None
        return dataclasses.replace(row, raw_usage=closing.usage, unpriced_reason=_FAULT)

    async def count_unmetered(self) -> None:
        """Count the calls that could not be metered, as the ledger knows them."""
        self._state.unmetered_calls = await self._patience.insist(self._ledger.unmetered_calls)

    async def _insert(
        self, rows: Sequence[LedgerRow], values: Columns | None = None
    ) -> InsertResult:
        """Insert; where that fails for a fault of ours, find the rows that are to blame."""
        try:
            return await self._ledger.insert(rows, values)
        except Exception as exc:  # noqa: BLE001  one row must not hold up all others
            problem = _blamed(exc)
        if len(rows) == 1:
            return InsertResult(refused=((rows[0], problem),))
        middle = len(rows) // 2
        first, second = await self._insert(rows[:middle]), await self._insert(rows[middle:])
        return InsertResult(
            inserted=first.inserted + second.inserted, refused=first.refused + second.refused
        )

    async def _settle(self, notes: Sequence[Noted], lines: Sequence[Lines]) -> None:
        """Charge what came to its end; what is to blame for a fault is found, and left."""
        try:
            self._state.rows += await self._ledger.settle(notes, lines, self._price)
        except Exception as exc:  # noqa: BLE001  one object must not hold up all others
            problem = _blamed(exc)
        else:
            return
        if len(notes) + len(lines) == 1:
            self._state.refused += 1
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
                self._state.faults += 1
                maker = due.maker.event_id.hex()
                _log.error("metering fault", error_type=type(exc).__name__, event_id=maker)
        return rows

    def _tell_apart(self, rows: Sequence[LedgerRow]) -> None:
        """Count what is not simply known of rows that are in the ledger."""
        for row in rows:
            if row.usage_source == UsageSource.ESTIMATED:
                self._state.estimated += 1
            if row.usage_source != UsageSource.UNAVAILABLE and (
                row.cost_usd is None or row.unpriced_reason is not None
            ):
                self._state.unpriced += 1

    async def _count(self, result: InsertResult) -> None:
        self._state.rows += result.inserted
        self._state.last_commit = self._clock()
        for row, reason in result.refused:
            await asyncio.to_thread(self._refuse, row, reason)

    def _refuse(self, refused: LedgerRow | Closing, reason: str) -> None:
        self._state.refused += 1
        _log.error("row refused", problem=_headline(reason))
        try:
            self._refusals.keep(refused, reason, at=self._clock())
        except OSError as exc:
            _log.error("refused row not kept", problem=exc.strerror)


def _blamed(exc: Exception) -> str:
    """Name the fault of what was to be written; raise what is none of it: the database is gone."""
    if isinstance(exc, RowsRefusedError):
        return _headline(str(exc))
    if isinstance(exc, MeterError):
        raise exc
    return type(exc).__name__


def _headline(reason: str) -> str:
    return reason.partition("\n")[0]  # details may hold facts
