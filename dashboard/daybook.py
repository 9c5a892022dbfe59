"""Sums of days in any zone, kept once these are over: to add up days is to add what is kept.

A day of the report's zone that is over and folded never changes; should a row come late for it, it
is folded again and has another version. So the sums of a stretch of time that lies in such days are
read once: a day of another zone is a hundred quarters of hours, a year of them tens of thousands.
What lies in days that are still open is read once for each snapshot.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dashboard import adding, compact
from dashboard.asking import Row, in_order
from dashboard.cells import Key
from dashboard.compact import CellKey, Cells, Item
from dashboard.filters import Filter
from dashboard.keeping import Keeping
from dashboard.stretches import Stretch, Versions, pieces_of, stretches_of

MOST_BYTES = 8_000_000  # of kept cells
MOST_NAMES = 10_000  # of endpoint, model and tier, to have each once
MOST_ADDED = 32  # ranges of days that are kept added up
FEW = 8  # days that are added up each time
AT_ONCE = 40  # days that one statement reads, where there may be a second connection

Question: TypeAlias = tuple[Any, ...]  # a statement and its values
Ask = Callable[[Sequence[Question]], Awaitable[Sequence[Sequence[Row]]]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What one snapshot sees: which version of each day; and what it has read."""

    versions: Versions
    cells: dict[Stretch, Cells] = field(default_factory=dict)


class Daybook:
    """Keeps the sums of days that are over, the last used ones first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._kept: Keeping[Stretch, Cells] = Keeping(most_bytes)
        self._added: OrderedDict[tuple[Cells, ...], list[Item]] = OrderedDict()
        self._names: dict[CellKey, CellKey] = {}

    async def read(
        self, ask: Ask, seen: Seen, wanted: Iterable[Filter], by_day: Iterable[Filter]
    ) -> None:
        """Read together what several questions are going to ask for, some of them day by day."""
        parts: dict[Stretch, None] = {}
        for one in wanted:
            parts |= dict.fromkeys(pieces_of(one, seen.versions) or ())
        for one in by_day:
            days = stretches_of(one, seen.versions) or ()
            parts |= dict.fromkeys(part for _, part in days)
        await self._read(ask, seen, list(parts))

    async def sums(
        self, ask: Ask, seen: Seen, wanted: Filter, keys: tuple[Key, ...]
    ) -> Sequence[Row] | None:
        """Return sums by keys, in the order of the filter; None: the database has to tell."""
        if "day" not in keys:
            items = await self._all(ask, seen, wanted)
            if items is None:
                return None
            return in_order(wanted, keys, compact.by_keys(keys, [(None, items)]))
        days = stretches_of(wanted, seen.versions)
        if days is None or not await self._read(ask, seen, [part for _, part in days]):
            return None
        by_day = ((day, compact.chosen(wanted, seen.cells[part].items())) for day, part in days)
        return in_order(wanted, keys, compact.by_keys(keys, by_day))

    async def total(self, ask: Ask, seen: Seen, wanted: Filter) -> Row | None:
        """Return the sums of all that is wanted; None: the database has to tell."""
        items = await self._all(ask, seen, wanted)
        return None if items is None else compact.total(items)

    async def _all(self, ask: Ask, seen: Seen, wanted: Filter) -> Iterable[Item] | None:
        """Return all cells that are wanted, whatever the day; None: the database has to tell."""
        parts = pieces_of(wanted, seen.versions)
        if parts is None or not await self._read(ask, seen, parts):
            return None
        return compact.chosen(wanted, self._together(seen, parts))

    def _together(self, seen: Seen, parts: Sequence[Stretch]) -> Iterable[Item]:
        """Return the cells of many days; of those that are over, added up once."""
        over = [part for part in parts if part.version(seen.versions) is not None]
        if len(over) <= FEW:
            return [item for part in parts for item in seen.cells[part].items()]
        days = tuple(seen.cells[part] for part in over)
        added = self._added.get(days)
        if added is None:
            added = compact.by_cell(item for cells in days for item in cells.items())
            self._added[days] = added
            if len(self._added) > MOST_ADDED:
                self._added.popitem(last=False)
        self._added.move_to_end(days)
        known = frozenset(over)
        opened = [part for part in parts if part not in known]
        return [*added, *(item for part in opened for item in seen.cells[part].items())]

    async def _read(self, ask: Ask, seen: Seen, parts: Sequence[Stretch]) -> bool:
        """Have all these stretches among what is seen; False: one of them is too large."""
        self._kept.begin()
        missing = []
        for part in parts:
            if part in seen.cells:
                continue
            version = part.version(seen.versions)
            kept = None if version is None else self._kept.get(part, version)
            if kept is None:
                missing.append(part)
            else:
                seen.cells[part] = kept
        asked = _portions(missing)
        answers = await ask([_question(some) for some in asked]) if asked else ()
        try:
            for some, rows in zip(asked, answers, strict=True):
                self._take(seen, some, rows)
        except OverflowError:
            return False
        return True

    def _take(self, seen: Seen, parts: Sequence[Stretch], rows: Sequence[Row]) -> None:
        """Pack what has been read of some stretches, and keep what will not change."""
        keys: list[list[CellKey]] = [[] for _ in parts]
        data = [bytearray() for _ in parts]
        for row in rows:
            place = row["place"] - 1
            keys[place].append(self._name((row["endpoint"], row["model"], row["service_tier"])))
            data[place] += compact.packed(row)
        for place, part in enumerate(parts):
            cells = seen.cells[part] = Cells(tuple(keys[place]), bytes(data[place]))
            version = part.version(seen.versions)
            if version is not None:
                self._kept.keep(part, version, cells, cells.size)

    def _name(self, key: CellKey) -> CellKey:
        if len(self._names) > MOST_NAMES:
            self._names.clear()
        return self._names.setdefault(key, key)


def _portions(parts: Sequence[Stretch]) -> list[list[Stretch]]:
    """Return days and other stretches apart, so many at a time."""
    kinds = ([part for part in parts if part.is_report_day is kind] for kind in (True, False))
    return [
        kind[begin : begin + AT_ONCE] for kind in kinds for begin in range(0, len(kind), AT_ONCE)
    ]


def _question(parts: Sequence[Stretch]) -> Question:
    if parts[0].is_report_day:
        return adding.CELLS_OF_DAYS, [part.touched[0] for part in parts]
    return adding.CELLS_OF_STRETCHES, [part.since for part in parts], [part.past for part in parts]
