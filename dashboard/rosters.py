"""Who is named on a day, as sets of bits that are kept: to count users of many days is to OR them.

A day that is over and folded never changes; should a row come late for it, it is folded again and
has another version. So its sets are read once, and every question asks only which versions count.
A day that is still open is read once for each snapshot. Of a day of which only a part lies in a
range (another zone's days begin in the middle of ours) packed hours tell who was there. Where there
are none each user's first and last call do, or tell nothing, and whoever asks counts rows.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from dashboard import packed, selects
from dashboard.asking import DAY, Row, around
from dashboard.cells import Key
from dashboard.filters import Filter
from dashboard.keeping import Keeping
from dashboard.together import together

MOST_BYTES = 24_000_000  # of kept sets
AT_ONCE = 64  # days that are read with one statement
BLOCK = 8192
ONE = ord("1")

Fetch = Callable[..., Awaitable[Sequence[Row]]]


@dataclass(frozen=True, slots=True)
class Part:
    """A day of the report's zone, as far as it lies in a range; None: to its own end."""

    day: date
    since: datetime | None = None
    past: datetime | None = None
    by_endpoint: bool = True

    @property
    def whole(self) -> bool:
        """Whether all of the day is meant."""
        return self.since is None and self.past is None


@dataclass(frozen=True, slots=True)
class Roster:
    """Users of a day: bits by endpoint, and the names of those who have no number yet."""

    numbered: Mapping[str | None, int] = field(default_factory=dict)
    nameless: Mapping[str | None, frozenset[str]] = field(default_factory=dict)
    known: bool = True  # False: the first and last calls do not tell

    @property
    def size(self) -> int:
        """Return about how many bytes it takes."""
        return 200 + sum(100 + bits.bit_length() // 8 for bits in self.numbered.values())


@dataclass(frozen=True, slots=True)
class Moment:
    """What a snapshot sees: which version of each day, None if it is open; and the open ones."""

    versions: Mapping[date, datetime | None]
    opened: dict[Part, Roster] = field(default_factory=dict)


class Rosters:
    """Keeps the sets of folded days, the last used ones first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._kept: Keeping[Part, Roster] = Keeping(most_bytes)

    async def read(self, fetch: Fetch, moment: Moment, wanted: Iterable[Filter]) -> None:
        """Read together what several questions are going to ask for."""
        parts: dict[Part, None] = {}
        for one in wanted:
            for few in (_groups(one, (), moment.versions) or {}).values():
                parts |= dict.fromkeys(few)
        for begin in range(0, len(parts), AT_ONCE):
            await self._rosters(fetch, moment, [*parts][begin : begin + AT_ONCE])

    async def count(
        self, fetch: Fetch, moment: Moment, wanted: Filter, keys: tuple[Key, ...]
    ) -> dict[tuple[Any, ...], int] | None:
        """Return how many users are named, by keys; None: the rows have to tell."""
        groups = _groups(wanted, keys, moment.versions)
        if groups is None:
            return None
        self._kept.begin()
        counted: dict[tuple[Any, ...], int] = {}
        for place, (day, parts) in enumerate(groups.items()):
            if len(groups) > 1 and place % AT_ONCE == 0:  # read together what is asked one by one
                some = [*groups.values()][place : place + AT_ONCE]
                await self._rosters(fetch, moment, list({part for few in some for part in few}))
            union = await self._union(fetch, moment, wanted, parts)
            if union is None:
                return None
            if keys == ("endpoint",):
                return {(name,): size for name, size in _sizes(union).items()}
            numbered, nameless = _together(union)
            counted[() if not keys else (day,)] = numbered.bit_count() + len(nameless)
        return counted

    async def _union(
        self, fetch: Fetch, moment: Moment, wanted: Filter, parts: Sequence[Part]
    ) -> Roster | None:
        numbered: dict[str | None, int] = {}
        nameless: dict[str | None, frozenset[str]] = {}
        for begin in range(0, len(parts), AT_ONCE):
            some = parts[begin : begin + AT_ONCE]
            for roster in await self._rosters(fetch, moment, some):
                if not roster.known:
                    return None
                for name, bits in roster.numbered.items():
                    if _is_wanted(wanted, name):
                        numbered[name] = numbered.get(name, 0) | bits
                for name, names in roster.nameless.items():
                    if _is_wanted(wanted, name):
                        nameless[name] = nameless.get(name, frozenset()) | names
        return Roster(numbered, nameless)

    async def _rosters(self, fetch: Fetch, moment: Moment, parts: Sequence[Part]) -> list[Roster]:
        """Return the sets of some days, those that are not kept by one statement of each kind."""
        found: dict[Part, Roster] = {}
        for part in parts:
            version = moment.versions[part.day]
            kept = None if version is None else self._kept.get(part, version)
            if kept is not None:
                found[part] = kept
            elif part in moment.opened:
                found[part] = moment.opened[part]
        missing = [part for part in parts if part not in found]
        folded = [part for part in missing if moment.versions[part.day] is not None]
        opened = [part for part in missing if moment.versions[part.day] is None]
        kinds = (
            ([part for part in folded if part.whole], _whole),
            ([part for part in folded if not part.whole], _of_parts),
            ([part for part in opened if part.whole], _open),
            ([part for part in opened if not part.whole], _of_days),
        )
        for read in await together(*(read(fetch, some) for some, read in kinds if some)):
            found |= read
        for part in folded:
            self._kept.keep(part, moment.versions[part.day], found[part], found[part].size)
        moment.opened.update({part: found[part] for part in opened})
        return [found[part] for part in parts]


def parts_of(wanted: Filter, days: Iterable[date], *, by_endpoint: bool) -> list[Part]:
    """Return the days that have calls in the range of a filter, whole or in part."""
    start, end, zone = wanted.start, wanted.end, wanted.report_zone
    first, last = wanted.report_days
    if wanted.whole_report_days:
        first, last = wanted.first or date.min, wanted.last
    parts = []
    for day in days:
        if first <= day <= last:
            parts.append(Part(day))
            continue
        begin, past = around(day, day, zone)
        if wanted.whole_report_days or past <= (start or begin) or begin >= end:
            continue
        since = None if start is None or begin >= start else start
        parts.append(Part(day, since, None if past <= end else end, by_endpoint))
    return parts


def _groups(
    wanted: Filter, keys: tuple[Key, ...], versions: Mapping[date, datetime | None]
) -> dict[date | None, list[Part]] | None:
    """Return the parts of days to put together: of all, or of each day; None: days overlap."""
    by_endpoint = keys == ("endpoint",) or bool(wanted.endpoints or wanted.without)
    days = sorted(versions)
    if keys != ("day",):
        return {None: parts_of(wanted, days, by_endpoint=by_endpoint)}
    if wanted.whole_report_days:
        return {part.day: [part] for part in parts_of(wanted, days, by_endpoint=by_endpoint)}
    groups: dict[date | None, list[Part]] = {}
    for day in _local_days(wanted, days):
        part = wanted.with_(first=day, last=day)
        again = datetime.combine(day, datetime.min.time(), tzinfo=wanted.zone).replace(fold=1)
        if again.utcoffset() != again.replace(fold=0).utcoffset():
            return None  # clocks are put back over midnight
        near = [day + distance * DAY for distance in (-2, -1, 0, 1, 2)]
        known = [close for close in near if close in versions]
        groups[day] = parts_of(part, known, by_endpoint=by_endpoint)
    return groups


def _local_days(wanted: Filter, days: Sequence[date]) -> list[date]:
    """Return the days of a filter's zone that may have calls."""
    near = {day + distance * DAY for day in days for distance in (-1, 0, 1)}
    first = wanted.first or date.min
    return sorted(day for day in near if first <= day <= wanted.last)


def _is_wanted(wanted: Filter, endpoint: str | None) -> bool:
    if "endpoint" in wanted.without and endpoint is not None:
        return False
    return not wanted.endpoints or endpoint in wanted.endpoints


def _sizes(union: Roster) -> dict[str | None, int]:
    names = {*union.numbered, *union.nameless}
    return {
        name: union.numbered.get(name, 0).bit_count() + len(union.nameless.get(name, ()))
        for name in names
    }


def _together(union: Roster) -> tuple[int, frozenset[str]]:
    bits = 0
    for more in union.numbered.values():
        bits |= more
    return bits, frozenset().union(*union.nameless.values())


async def _whole(fetch: Fetch, parts: Sequence[Part]) -> dict[Part, Roster]:
    """Read the sets of folded days."""
    found: dict[date, dict[str | None, int]] = {part.day: {} for part in parts}
    for row in await fetch(selects.ROSTERS, list(found)):
        bits = int.from_bytes(row["users"].bytes, "big") << (BLOCK * row["block"])
        names = found[row["day"]]
        names[row["endpoint"]] = names.get(row["endpoint"], 0) | bits
    return {part: Roster(found[part.day]) for part in parts}


async def _open(fetch: Fetch, parts: Sequence[Part]) -> dict[Part, Roster]:
    """Read who was there on days that are not folded yet."""
    numbered: dict[date, dict[str | None, int]] = {part.day: {} for part in parts}
    nameless: dict[date, dict[str | None, frozenset[str]]] = {part.day: {} for part in parts}
    for row in await fetch(selects.OPEN_ROSTERS, list(numbered)):
        numbered[row["day"]][row["endpoint"]] = _bits(row["numbers"] or ())
        nameless[row["day"]][row["endpoint"]] = frozenset(row["names"] or ())
    return {part: Roster(numbered[part.day], nameless[part.day]) for part in parts}


async def _of_parts(fetch: Fetch, parts: Sequence[Part]) -> dict[Part, Roster]:
    """Read who was there in parts of folded days: from their hours, or from sums by user."""
    found = await _of_hours(fetch, parts)
    others = [part for part in parts if part not in found]
    for some, read in (
        ([part for part in others if not part.by_endpoint], _of_spans),
        ([part for part in others if part.by_endpoint], _of_days),
    ):
        found |= await read(fetch, some) if some else {}
    return found


async def _of_hours(fetch: Fetch, parts: Sequence[Part]) -> dict[Part, Roster]:
    """Read the same from packed hours, where there are some: they tell it exactly."""
    rows = await fetch(
        selects.ROSTERS_OF_HOURS,
        [part.day for part in parts],
        [part.since for part in parts],
        [part.past for part in parts],
    )
    numbered: dict[int, dict[str | None, set[int]]] = {}
    nameless: dict[int, dict[str | None, frozenset[str]]] = {}
    for row in rows:
        place = row["place"] - 1
        of_place = numbered.setdefault(place, {})
        names = nameless.setdefault(place, {})
        endpoint = row["endpoint"] if parts[place].by_endpoint else None
        if row["users"] is not None:
            users = packed.numbers(row["users"], row["block"])
            of_place.setdefault(endpoint, set()).update(users)
        elif row["numbers"] or row["names"]:
            of_place.setdefault(endpoint, set()).update(row["numbers"] or ())
            names[endpoint] = names.get(endpoint, frozenset()).union(row["names"] or ())
    return {
        parts[place]: Roster(
            {name: _bits(found) for name, found in of_place.items()}, nameless[place]
        )
        for place, of_place in numbered.items()
    }


async def _of_days(fetch: Fetch, parts: Sequence[Part]) -> dict[Part, Roster]:
    """Read who was there in parts of days from the sums by user and day."""
    return await _read(fetch, selects.ROSTERS_OF_DAYS, parts)


async def _of_spans(fetch: Fetch, parts: Sequence[Part]) -> dict[Part, Roster]:
    """Read the same from the sums by user, which know no endpoint and are fewer."""
    return await _read(fetch, selects.ROSTERS_OF_SPANS, parts)


async def _read(fetch: Fetch, statement: str, parts: Sequence[Part]) -> dict[Part, Roster]:
    values = (
        [part.day for part in parts],
        [part.since for part in parts],
        [part.past for part in parts],
        [part.by_endpoint for part in parts],
    )
    numbered: list[dict[str | None, int]] = [{} for _ in parts]
    nameless: list[dict[str | None, frozenset[str]]] = [{} for _ in parts]
    known = [True] * len(parts)
    for row in await fetch(statement, *values):
        place = row["place"] - 1
        numbered[place][row["endpoint"]] = _bits(row["numbers"] or ())
        nameless[place][row["endpoint"]] = frozenset(row["names"] or ())
        known[place] = known[place] and row["known"]
    return {
        part: Roster(numbered[place], nameless[place], known[place])
        for place, part in enumerate(parts)
    }


def _bits(numbers: Collection[int]) -> int:
    """Return a set of numbers, in the order in which the sets of the ledger have their bits."""
    blocks = max(numbers, default=0) // BLOCK + 1
    digits = bytearray(b"0") * (blocks * BLOCK)
    for number in numbers:
        digits[number] = ONE
    lowest_last = (digits[block * BLOCK : (block + 1) * BLOCK] for block in reversed(range(blocks)))
    return int(b"".join(lowest_last), 2)
