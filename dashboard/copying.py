"""Copy a file out of the ledger: all rows in order, as fast as two connections make them.

A file of calls is made in slices of time, each small enough to be sorted in memory. Two connections
see the ledger as of the same moment and take turns; what comes too early waits, in bounded memory.
Nothing is sent before the slices before it, so the file is the one that a single statement makes.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from itertools import pairwise

from dashboard import exports
from dashboard.asking import places, source_of, summing
from dashboard.cells import Key
from dashboard.exports import Dialect, Form
from dashboard.filters import Filter
from dashboard.queries import Ledger
from dashboard.snapshot import Snapshot, Write

SLICE_ROWS = 20_000  # sorted in memory, and planning them costs little beside them
NARROWED = 10  # times as many where endpoint or model leave a part of them
WAITING_BYTES = 8_000_000  # of each connection, a slice of ordinary rows
PIECE_BYTES = 256_000  # what is handed on at once: each step costs the same, whatever its size

Slice = tuple[datetime | None, datetime | None]


async def copy_file(
    ledger: Ledger,
    snapshot: Snapshot,
    form: Form,
    dialect: Dialect,
    wanted: Filter,
    write: Write,
    *,
    slice_rows: int = SLICE_ROWS,
) -> int:
    """Write a file as COPY makes it; return how many rows it has."""
    pieces = _Pieces(write)
    if form == "calls":
        rows = await _copy_calls(ledger, snapshot, dialect, wanted, pieces, slice_rows)
    else:
        rows = await snapshot.copy(*statement_of(form, dialect, wanted), pieces.add)
    await pieces.flush()
    return rows


async def _copy_calls(
    ledger: Ledger,
    snapshot: Snapshot,
    dialect: Dialect,
    wanted: Filter,
    pieces: "_Pieces",
    slice_rows: int,
) -> int:
    statement, values = statement_of("calls", dialect, wanted)
    if not await snapshot.any_late(wanted):
        statement = exports.punctual(dialect)
    slices = await _slices(snapshot, wanted, slice_rows)
    async with contextlib.AsyncExitStack() as stack:
        other = (
            None if len(slices) == 1 else await stack.enter_async_context(ledger.beside(snapshot))
        )
        if other is None:
            parts = [(number == 0, values + part) for number, part in enumerate(slices)]
            return sum([await snapshot.copy(statement, v, pieces.add, header=h) for h, v in parts])
        hands = [_Hand(snapshot), _Hand(other)]
        return await _take_turns(hands, statement, values, slices, pieces.write)


def statement_of(form: Form, dialect: Dialect, wanted: Filter) -> tuple[str, tuple[object, ...]]:
    """Return the SELECT of a file and its parameters; calls take the bounds of a slice beyond."""
    if form != "summary":
        return exports.statement(form, dialect), places(wanted, "any")
    keys: tuple[Key, ...] = ("user_id",)
    source = source_of(wanted, keys, "user")
    values = summing(wanted, keys, "user", source=source, limit=None)
    return exports.summary(source, dialect), values


async def _slices(snapshot: Snapshot, wanted: Filter, rows: int) -> list[Slice]:
    """Return when each slice begins and ends; None: it has no end on that side."""
    if wanted.by_call or wanted.users or wanted.search is not None or "user" in wanted.without:
        return [(None, None)]  # found by an index, or few
    narrow = wanted.endpoints or wanted.models or wanted.tiers or wanted.without
    bounds = await snapshot.bounds(wanted, rows=NARROWED * rows if narrow else rows)
    return list(pairwise([None, *bounds[1:], None]))


async def _take_turns(
    hands: Sequence["_Hand"],
    statement: str,
    values: tuple[object, ...],
    slices: Sequence[Slice],
    write: Write,
) -> int:
    try:
        async with asyncio.TaskGroup() as tasks:
            for number, hand in enumerate(hands):
                mine = slices[number :: len(hands)]
                tasks.create_task(hand.copy(statement, values, mine, header=number == 0))
            for number in range(len(slices)):
                async for chunk in hands[number % len(hands)].taken():
                    await write(chunk)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return sum(hand.rows for hand in hands)


class _Pieces:
    """Writes large pieces instead of the small ones that come."""

    def __init__(self, write: Write) -> None:
        self.write = write
        self._chunks: list[bytes] = []
        self._size = 0

    async def add(self, chunk: bytes) -> None:
        """Take a chunk, and write if it is enough."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size >= PIECE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write what is left."""
        if self._chunks:
            piece = b"".join(self._chunks)
            self._chunks, self._size = [], 0
            await self.write(piece)


class _Hand:
    """What one connection has copied and nobody has taken yet."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._waiting: deque[bytes | None] = deque()  # None: a slice ends
        self._size = 0
        self._changed = asyncio.Condition()
        self.rows = 0

    async def copy(
        self, statement: str, values: tuple[object, ...], slices: Sequence[Slice], *, header: bool
    ) -> None:
        """Copy slice after slice, and wait while too much waits to be taken."""
        pieces = _Pieces(self._put)
        for part in slices:
            self.rows += await self._snapshot.copy(
                statement, values + part, pieces.add, header=header
            )
            header = False
            await pieces.flush()
            await self._put(None)

    async def taken(self) -> AsyncIterator[bytes]:
        """Yield the chunks of one slice."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._waiting))
                chunk = self._waiting.popleft()
                self._size -= len(chunk or b"")
                self._changed.notify()
            if chunk is None:
                return
            yield chunk

    async def _put(self, chunk: bytes | None) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._size < WAITING_BYTES)
            self._waiting.append(chunk)
            self._size += len(chunk or b"")
            self._changed.notify()
