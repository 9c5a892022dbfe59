"""Which users come first: sums are added up here, out of packed rows and of what is not packed yet.

Of the days of a range nearly all are packed. What is left, the day that is still open and in other
time zones the part of an hour at both ends, is asked for user by user. Ranks are exact: places are
whole numbers, and among equals the names decide, as in every other order.
"""

import math
from array import array
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from dashboard import placing
from dashboard.asking import Row, cells_of, order_of, sums_key
from dashboard.filters import Filter
from dashboard.opened import OpenDays
from dashboard.packed import BLOCK, NOBODY, Block, Way
from dashboard.places import SCALE, Order, Places
from dashboard.presence import MOST_UNPACKED
from dashboard.tallies import Tallies, Tally, added
from dashboard.together import together

MOST_PARTS = 6  # of days that are read row by row
MOST_NAMES = 1000  # of equals who are asked for all of their names
MOST_PASSED = 10_000  # rows that are passed over by their number: the names of all are asked for
NAMELESS = 1 << 32  # from here on: users who have no number yet

Fetch = Callable[..., Coroutine[Any, Any, Sequence[Row]]]
_EDGES = ("start", "since", "until")
_WAYS: Mapping[str, Way] = {"first_call": "least", "last_call": "greatest"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where sums come from: the ledger, its open days, and what was added up of the others."""

    fetch: Fetch
    open_days: OpenDays
    any_late: Callable[[], Awaitable[bool]]  # whether any row counts later than it came
    tallies: Tallies


async def ranks(sources: Sources, wanted: Filter, *, limit: int) -> list[Row] | None:
    """Return which users come first, from where the page begins; None: it cannot be told here.

    A row has `user_id` and, for the page that begins after it, `after_place` and `after_name`.
    """
    if wanted.offset > MOST_PASSED:
        return None
    order = Order(*order_of(wanted, "-cost_usd"), *sums_key(wanted))
    parts = await sources.fetch(placing.PARTS, wanted.start, wanted.end)
    if not _are_few(parts):
        return None
    ranked = _Ranked(sources, wanted, order, parts)
    places = Places(wanted.offset + limit, order.after)
    if not await ranked.look(places):
        return None
    return (await ranked.named(places))[wanted.offset : wanted.offset + limit]


def is_packed(wanted: Filter) -> bool:
    """Whether packed rows know what a filter is about."""
    unknown = wanted.by_call or wanted.tiers or wanted.users or wanted.until is not None
    return not unknown and "user" not in wanted.without


def _are_few(parts: Sequence[Row]) -> bool:
    kinds = [part["kind"] for part in parts]
    return kinds.count("open") <= MOST_UNPACKED and kinds.count("rows") <= MOST_PARTS


class _Ranked:
    """One question: what is packed, what is open, and who has no number yet."""

    def __init__(
        self, sources: Sources, wanted: Filter, order: Order, parts: Sequence[Row]
    ) -> None:
        self._sources = sources
        self._fetch = sources.fetch
        self._wanted = wanted
        self._order = order
        self._parts = parts
        self._way = _WAYS.get(order.column, "sum")
        self._tallies = sources.tallies
        self._packed: dict[int, Tally] = {}  # by block
        self._open: list[_Open] = []
        self._nameless: dict[str, int] = {}
        self._matched: set[int] | None = None

    async def look(self, places: Places) -> bool:
        """Have all users take their places; False: some sums could not be packed."""
        most = max((part["most"] or 0 for part in self._parts), default=0) // BLOCK
        groups = [[-1, 0], *([number] for number in range(1, most + 1))]
        self._tallies.begin()
        await together(self._read_open(), self._add_up(groups[0]), self._search())
        for group in groups:
            if group is not groups[0]:
                await self._add_up(group)
            for number in group:
                if not self._take_places(number, places):
                    return False
        blocks = {number for part in self._open for number in part.values}
        rest = sorted(number for number in blocks if number >= NAMELESS // BLOCK)
        return all(self._take_places(number, places) for number in rest)

    async def named(self, places: Places) -> list[Row]:
        """Return who is at these places, in their order."""
        asked, bound = self._order.bound()
        equal = places.equal if asked else array("q")
        few = [number for _, number in places.better]
        names = {number: name for name, number in self._nameless.items()}
        for group, begin in ((equal, bound), (places.last, None)):
            if len(group) <= MOST_NAMES:
                few += group
                continue
            statement = placing.NAMED[-1 if self._order.falls else 1]
            rows = await self._fetch(statement, _numbers(group), begin, places.most)
            names |= {row["number"]: row["user_id"] for row in rows}
        rows = await self._fetch(placing.NAMES, _numbers(few))
        names |= {row["number"]: row["user_id"] for row in rows}
        found = [(places.after, number) for number in places.equal]
        found += [*places.better, *((places.boundary, number) for number in places.last)]
        ranked = [
            (place, "1" if number == NOBODY else f"0{names[number]}", number)
            for place, number in found
            if number == NOBODY or number in names
        ]
        ranked = [one for one in ranked if one[0] != places.after or self._order.comes(one[1])]
        ranked.sort(key=itemgetter(1), reverse=self._order.falls)
        ranked.sort(key=itemgetter(0))
        return [
            {
                "user_id": names.get(number),
                "after_place": self._order.written(place),
                "after_name": name,
            }
            for place, name, number in ranked
        ]

    async def _search(self) -> None:
        if self._wanted.search is not None:
            found = await self._fetch(placing.SEARCHED, self._wanted.search)
            self._matched = set(found[0]["numbers"])

    async def _add_up(self, numbers: list[int]) -> None:
        """Add up what is packed of some blocks, while the database looks for what is open."""
        wanted = self._wanted
        packed = [part for part in self._parts if part["kind"] in {"packed", "hours"}]
        spans = tuple((part["start"], part["past"], part["hour"]) for part in packed)
        what = (self._order.column, wanted.endpoints, wanted.models, wanted.without, spans)
        version = tuple(part["version"] for part in packed)
        for number in numbers:
            kept = self._tallies.get((number, *what), version)
            if kept is not None:
                self._packed[number] = kept
        missing = [number for number in numbers if number not in self._packed]
        rows = await self._read_packed(missing) if missing and version else ()
        for number in missing:
            mine = [row for row in rows if row["block"] == number]
            tally = added(mine, Block(number, self._way))
            self._packed[number] = tally
            self._tallies.keep((number, *what), version, tally)

    async def _read_packed(self, blocks: list[int]) -> Sequence[Row]:
        wanted = self._wanted
        spans = [part for part in self._parts if part["kind"] == "packed"]
        hours = [part for part in self._parts if part["kind"] == "hours"]
        narrow = wanted.endpoints or wanted.models or {"endpoint", "model"} & {*wanted.without}
        return await self._fetch(
            placing.PACKED[self._order.column],
            *cells_of(wanted),
            not narrow,
            blocks,
            [part["start"] for part in spans],
            [part["past"] for part in spans],
            [part["start"] for part in hours],
            [part["hour"] for part in hours],
        )

    async def _read_open(self) -> None:
        days = [part["start"] for part in self._parts if part["kind"] == "open"]
        opened = self._sources.open_days.sums(self._wanted, self._order.column, days)
        for row in [row for rows in await together(opened, self._read_rest()) for row in rows]:
            found = _Open(row["scale"])
            columns = (row[name] or () for name in ("numbers", "names", "sums"))
            for number, name, value in zip(*columns, strict=True):
                user = self._number(number, name)
                found.values.setdefault(user // BLOCK, {})[user] = value
            self._open.append(found)

    async def _read_rest(self) -> Sequence[Row]:
        """Return the sums of what lies in parts of hours, row by row."""
        rest = [part for part in self._parts if part["kind"] == "rows"]
        if not rest:
            return ()
        wanted, late = self._wanted, await self._sources.any_late()
        statement = (placing.OF_LATE_ROWS if late else placing.OF_ROWS)[self._order.column]
        values = (*cells_of(wanted), wanted.search)
        asked = (
            self._fetch(
                statement, *values, *(part[name] for name in _EDGES), wanted.report_zone.key
            )
            for part in rest
        )
        return [row for rows in await together(*asked) for row in rows]

    def _number(self, number: int | None, name: str | None) -> int:
        if number is not None:
            return number
        if name is None:
            return NOBODY
        return self._nameless.setdefault(name, NAMELESS + len(self._nameless))

    def _take_places(self, number: int, places: Places) -> bool:
        """Let one block of users take their places; False: a sum of theirs could not be packed."""
        tally = self._packed.pop(number, None) or Tally(Block(number, self._way))
        scales = [tally.scale, *(part.scale for part in self._open)]
        scale = max(scales)
        block = tally.at(scale)
        if block is None or min(scales) < 0 or scale > SCALE:
            return False
        for part in self._open:
            mine = part.values.get(number, {})
            block.add([*mine], [*mine.values()], times=10 ** (scale - part.scale))
        times = direction = self._order.direction
        if self._order.column in placing.SCALES:
            times *= 10 ** (SCALE - scale)
        is_first_page_of_all = self._matched is None and places.after == -math.inf
        found = (
            block.first(places.most, direction)
            if is_first_page_of_all
            else block.others_than_zero()
        )
        places.add((value * times, user) for user, value in found if self._is_searched(user))
        if self._way == "sum" and not places.is_full_before(0):
            places.add(
                (math.inf if value is None else 0, user)
                for user, value in block.zero_and_unknown()
                if self._is_searched(user)
            )
        return True

    def _is_searched(self, number: int) -> bool:
        return self._matched is None or number in self._matched or number >= NAMELESS


@dataclass(slots=True)
class _Open:
    """What is not packed: values in units of some scale (-1: too large), by block and number."""

    scale: int
    values: dict[int, dict[int, int | None]] = field(default_factory=dict)


def _numbers(users: Iterable[int]) -> list[int]:
    """Return those of them who have numbers of the ledger's."""
    return [number for number in users if 0 <= number < NAMELESS]
