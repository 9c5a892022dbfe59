"""Who is named on a day, as sets of bits that are kept: to count users of many days is to OR them.

A day that is over and folded never changes; should a row come late for it, it is folded again and
has another version. So its sets are read once, and every question asks only which versions count.
A day that is still open is read once for each snapshot. Of a day of which only a part lies in a
range (another zone's days begin in the middle of ours) each user's first and last call tell whether
one of them lies there; where they do not, nothing is said, and whoever asks counts rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from dashboard import presence
from dashboard.asking import DAY, around
from dashboard.cells import Key
from dashboard.filters import Filter, midnight
from dashboard.keeping import Keeping
from dashboard.presence import Calls, Fetch, Part, Present, Roster
from dashboard.stretches import is_torn
from dashboard.together import together

NEAR = 3 * DAY  # of whole days lie the parts of others
MOST_BYTES = 12_000_000  # of kept sets
AT_ONCE = 64  # days that are read with one statement


@dataclass(frozen=True, slots=True)
class Moment:
    """What a snapshot sees: which version of each day, None if it is open; and what may change."""

    versions: Mapping[date, datetime | None]
    present: Present
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
        everything = (_groups(wanted, (), moment.versions) or {}) if keys else groups
        await self._open(fetch, moment, [*groups.values(), *everything.values()])
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

    async def _open(self, fetch: Fetch, moment: Moment, groups: Iterable[Sequence[Part]]) -> None:
        """Read all that is asked of open days at once, also for the total that is asked next."""
        opened = {part for parts in groups for part in parts if not moment.versions[part.day]}
        await self._rosters(fetch, moment, list(opened))

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
            ([part for part in folded if part.has_set], presence.of_folded_days, fetch),
            ([part for part in folded if not part.has_set], presence.of_folded_parts, fetch),
            (opened, presence.of_open_days, moment.present),
        )
        for read in await together(*(read(ask, some) for some, read, ask in kinds if some)):
            found |= read
        for part in folded:
            if part.calls.of_models and not found[part].known:
                moment.opened[part] = found[part]  # until it is packed, which is no new version
                continue
            self._kept.keep(part, moment.versions[part.day], found[part], found[part].size)
        moment.opened.update({part: found[part] for part in opened})
        return [found[part] for part in parts]


def parts_of(wanted: Filter, days: Iterable[date], *, by_endpoint: bool) -> list[Part]:
    """Return the days that have calls in the range of a filter, whole or in part."""
    start, end, zone = wanted.start, wanted.end, wanted.report_zone
    calls = Calls((), wanted.models, "model" in wanted.without)
    of_endpoints = calls._replace(endpoints=wanted.endpoints) if by_endpoint else calls
    first, last = wanted.report_days
    if wanted.whole_report_days:
        first, last = wanted.first or date.min, wanted.last
    parts = []
    for day in days:
        if first <= day <= last:
            parts.append(Part(day, calls=calls))
            continue
        if wanted.whole_report_days or day + NEAR < first or day - NEAR > last:
            continue
        begin, past = _bounds(day, zone)
        if past <= (start or begin) or begin >= end:
            continue
        since = None if start is None or begin >= start else start
        until = None if past <= end else end
        parts.append(Part(day, since, until, by_endpoint, of_endpoints))
    return parts


def _bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the time in which a day lies; where it begins or ends twice, some more."""
    if is_torn(day, zone) or is_torn(day + DAY, zone):
        return around(day, day, zone)
    return midnight(day, zone), midnight(day + DAY, zone)


def _groups(
    wanted: Filter, keys: tuple[Key, ...], versions: Mapping[date, datetime | None]
) -> dict[date | None, list[Part]] | None:
    """Return the parts of days to put together: of all, or of each day; None: days overlap."""
    by_endpoint = keys == ("endpoint",) or "endpoint" in wanted.without or bool(wanted.endpoints)

    def parts(wanted: Filter, days: Iterable[date]) -> list[Part]:
        """Return its parts; open days are read without endpoints that nobody asks for."""
        found = parts_of(wanted, days, by_endpoint=by_endpoint)
        return [
            part
            if versions[part.day]
            else part._replace(
                by_endpoint=by_endpoint, calls=part.calls._replace(endpoints=wanted.endpoints)
            )
            for part in found
        ]

    days = sorted(versions)
    if keys != ("day",):
        return {None: parts(wanted, days)}
    if wanted.whole_report_days:
        return {part.day: [part] for part in parts(wanted, days)}
    groups: dict[date | None, list[Part]] = {}
    for day in _local_days(wanted, days):
        part = wanted.with_(first=day, last=day)
        again = datetime.combine(day, datetime.min.time(), tzinfo=wanted.zone).replace(fold=1)
        if again.utcoffset() != again.replace(fold=0).utcoffset():
            return None  # clocks are put back over midnight
        near = [day + distance * DAY for distance in (-2, -1, 0, 1, 2)]
        known = [close for close in near if close in versions]
        groups[day] = parts(part, known)
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
