"""Sums of one moment of the ledger, and who is active in them: kept, packed, or asked for."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dashboard import adding, placing, ranking, selects
from dashboard.asking import (
    PIECED,
    Row,
    added,
    in_daybook,
    in_rosters,
    in_sets,
    merged,
    places,
    source_of,
    summing,
    to_quarter,
)
from dashboard.cells import Key, Source
from dashboard.connections import Connections, Priority
from dashboard.daybook import Daybook, Question, Seen
from dashboard.filters import Filter
from dashboard.opened import OpenDays
from dashboard.rosters import Moment, Rosters
from dashboard.tallies import Tallies
from dashboard.together import both, together

MOST_FOUND = 1000  # users whom a search has found and whose sums are looked for one by one


@dataclass(frozen=True, slots=True)
class Kept:
    """What was read of days that are over, for all snapshots."""

    rosters: Rosters = field(default_factory=Rosters)
    daybook: Daybook = field(default_factory=Daybook)
    tallies: Tallies = field(default_factory=Tallies)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Which users come first (None: who was not named), and where the page after them begins."""

    users: Sequence[str | None]
    after: tuple[str | None, ...] | None = None


class Sums:
    """Whatever is added up or counted, by which keys and of which calls."""

    def __init__(self, connections: Connections, kept: Kept) -> None:
        self._connections = connections
        self._kept = kept
        self._open_days = OpenDays(self._fetch_first)
        self._looking = asyncio.Lock()  # for who is active: once, not by each who asks
        self._reading = asyncio.Lock()  # sums of days, likewise
        self._counting = asyncio.Lock()  # and which days there are
        self._days: Seen | None = None
        self._moment: Moment | None = None
        self._late = False  # as soon as it is known which days there are

    async def sums(
        self, wanted: Filter, keys: tuple[Key, ...], *, search_in: str = ""
    ) -> Sequence[Row]:
        """Return sums by keys, all of them, in the order of the filter."""
        if in_daybook(wanted, keys, search_in):
            async with self._reading:
                kept = await self._kept.daybook.sums(self._all, await self._seen(), wanted, keys)
            if kept is not None:
                return kept
        source = source_of(wanted, keys, search_in)
        values = summing(wanted, keys, search_in, source=source, limit=None)
        return await self._summed(source, keys, values)

    async def first_users(self, wanted: Filter, *, search_in: str = "", limit: int) -> Ranked:
        """Return which users come first in the order of the filter."""
        source = source_of(wanted, ("user_id",), search_in)
        values = summing(wanted, ("user_id",), search_in, source=source, limit=limit + 1)
        ranks, _ = await both(
            self._ranks(wanted, source, values, limit=limit + 1), self._any_late()
        )
        users = [row["user_id"] for row in ranks[:limit]]
        if len(ranks) <= limit:
            return Ranked(users=users)
        last = ranks[limit - 1]
        return Ranked(users=users, after=(last["after_place"], last["after_name"]))

    async def sums_of_users(
        self, wanted: Filter, users: Sequence[str | None]
    ) -> dict[str | None, Row]:
        """Return the sums of some users, as far as there are any; None is who was not named."""
        source = source_of(wanted, ("user_id",), "")
        named = tuple(user for user in users if user is not None)
        parts = [wanted.with_(users=named, search=None, sort=None)] if named else []
        if None in users:
            nameless = (*wanted.without, "user")
            parts.append(wanted.with_(users=(), without=nameless, search=None, sort=None))
        found: dict[str | None, Row] = {}
        for part in parts:
            values = summing(part, ("user_id",), "", source=source, limit=None)
            rows = await self._summed(source, ("user_id",), values)
            found |= {row["user_id"]: row for row in rows}
        return found

    async def totals(self, wanted: Filter, *, search_in: str = "") -> Row:
        """Return the sums of the whole filter."""
        if search_in == "user" and wanted.search is not None:
            users = await self._found(wanted)
            if users is not None and not users:
                return added(())
            wanted = wanted if users is None else wanted.with_(search=None, users=users)
        if in_daybook(wanted, (), search_in):
            async with self._reading:
                kept = await self._kept.daybook.total(self._all, await self._seen(), wanted)
            if kept is not None:
                return kept
        source = source_of(wanted, (), search_in)
        values = places(wanted, search_in, pieced=source in PIECED)
        late = source in PIECED and await self._any_late()
        return (await self._fetch(adding.totals(source, late=late), *values))[0]

    async def active_users(
        self, wanted: Filter, keys: tuple[Key, ...] = (), *, search_in: str = ""
    ) -> dict[tuple[Any, ...], int]:
        """Return how many users are named, by keys."""
        if in_rosters(wanted, keys):
            async with self._looking:
                counted = await self._in_rosters(wanted, keys)
            if counted is not None:
                return counted
        if in_sets(wanted, keys, search_in):
            edges = not wanted.whole_report_days
            values = places(wanted, search_in, pieced=edges)
            rows = await self._fetch(adding.named(keys, edges=edges), *values)
        else:
            source = source_of(wanted, ("user_id", *keys), search_in)
            values = places(wanted, search_in, pieced=source in PIECED)
            rows = await self._fetch(adding.active_users(source, keys), *values)
        return {tuple(row[key] for key in keys): row["users"] for row in rows}

    async def active(self, wanted: Filter) -> int:
        """Return how many users are named, to the quarter of an hour where a day ends early."""
        if wanted.until is None or not wanted.in_report_zone or wanted.tiers or wanted.by_call:
            return (await self.active_users(wanted))[()]
        if in_rosters(wanted, ()):
            async with self._looking:
                counted = await self._in_rosters(to_quarter(wanted), ())
            if counted is not None:
                return counted[()]
        if in_sets(wanted, (), ""):
            rows = await self._fetch(adding.NAMED_UNTIL, *places(wanted, "", pieced=True))
        else:
            rows = await self._fetch(adding.ACTIVE_UNTIL, *places(wanted, ""))
        return int(rows[0]["users"])

    async def foresee(
        self, wanted: Iterable[Filter], by_day: Iterable[Filter], active: Iterable[Filter]
    ) -> None:
        """Read together what is going to be asked for one by one: sums, and who was there."""
        await together(self._foresee_sums(wanted, by_day), self._foresee_active(active))

    async def _ranks(
        self, wanted: Filter, source: Source, values: tuple[object, ...], *, limit: int
    ) -> Sequence[Row]:
        """Return which users come first: by packed sums, or by those of halves at the same time."""
        if ranking.is_packed(wanted):
            sources = ranking.Sources(
                fetch=self._fetch_first,
                open_days=self._open_days,
                any_late=self._any_late,
                tallies=self._kept.tallies,
            )
            with self._open_days.expecting_ranks(wanted):
                ranked = await ranking.ranks(sources, wanted, limit=limit)
            if ranked is not None:
                return ranked
        statement = adding.ranks(source)
        middle = None
        if not (wanted.users or wanted.without) and self._connections.count > 1:
            middle = (await self._fetch(selects.MIDDLE))[0]["user_id"]
        everybody, nobody = (None, None, False), (None, None, True)
        if middle is None:
            return await self._fetch(statement, *values, *everybody)
        values = (*values[:-2], wanted.offset + limit, 0)
        parts = ((None, middle, False), (middle, None, False), nobody)
        found = await together(*(self._fetch(statement, *values, *part) for part in parts))
        return merged(wanted, [row for rows in found for row in rows], limit=limit)

    async def _summed(
        self, source: Source, keys: tuple[Key, ...], values: tuple[object, ...]
    ) -> Sequence[Row]:
        late = source in PIECED and await self._any_late()
        return await self._fetch(adding.sums(source, keys, late=late), *values)

    async def _found(self, wanted: Filter) -> tuple[str, ...] | None:
        """Return the users whom a search finds; None: they are too many to ask for by name."""
        if wanted.users or not ranking.is_packed(wanted):
            return None
        first, last = wanted.report_days
        found = await self._fetch(placing.FOUND, wanted.search, first, last, MOST_FOUND + 1)
        return None if len(found) > MOST_FOUND else tuple(row["user_id"] for row in found)

    async def _in_rosters(
        self, wanted: Filter, keys: tuple[Key, ...]
    ) -> dict[tuple[Any, ...], int] | None:
        """Return how many users are named, from sets that are kept; None: they do not tell."""
        if not wanted.whole_report_days and await self._any_late():
            return None  # what came late has a day, but no hour in it
        return await self._kept.rosters.count(self._fetch, await self._known(), wanted, keys)

    async def _foresee_sums(self, wanted: Iterable[Filter], by_day: Iterable[Filter]) -> None:
        known, days = (
            [one for one in some if in_daybook(one, (), "")] for some in (wanted, by_day)
        )
        async with self._reading:
            await self._kept.daybook.read(self._all, await self._seen(), known, days)

    async def _foresee_active(self, wanted: Iterable[Filter]) -> None:
        known = [
            to_quarter(one) if one.in_report_zone else one for one in wanted if in_rosters(one, ())
        ]
        if not await self._any_late():
            async with self._looking:
                moment = await self._known()
                await self._kept.rosters.read(self._fetch, moment, known)

    async def _any_late(self) -> bool:
        """Whether any row of the ledger counts later than it came."""
        await self._seen()
        return self._late

    async def _known(self) -> Moment:
        if self._moment is None:
            self._moment = Moment((await self._seen()).versions, self._open_days.present)
        return self._moment

    async def _seen(self) -> Seen:
        """Return which days there are, and which of them are over and folded."""
        async with self._counting:
            if self._days is None:
                (row,) = await self._fetch_first(selects.VERSIONS)
                self._late = row["any_late"]
                days, folded = row["days"] or (), row["folded"] or ()
                self._days = Seen(dict(zip(days, folded, strict=True)))
        return self._days

    async def _all(self, questions: Sequence[Question]) -> Sequence[Sequence[Row]]:
        return await together(*(self._fetch(*question) for question in questions))

    async def _fetch(self, statement: str, *values: object) -> Sequence[Row]:
        return await self._connections.fetch(statement, *values)

    async def _fetch_first(self, statement: str, *values: object) -> Sequence[Row]:
        return await self._connections.fetch(statement, *values, priority=Priority.FIRST)

    async def _fetch_last(self, statement: str, *values: object) -> Sequence[Row]:
        return await self._connections.fetch(statement, *values, priority=Priority.LAST)
