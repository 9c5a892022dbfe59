"""What can be asked of one moment of the ledger, one question at a time or two at once."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from dashboard import adding, listing, placing, ranking, selects
from dashboard.asking import (
    PIECED,
    Row,
    added,
    around,
    call_key,
    in_daybook,
    in_rosters,
    in_sets,
    is_narrow,
    merged,
    moment,
    of_endpoint,
    on_days,
    places,
    source_of,
    summing,
    to_quarter,
)
from dashboard.cells import Key, Source
from dashboard.connections import Connection, Connections, Priority, unavailable
from dashboard.daybook import Daybook, Question, Seen
from dashboard.errors import TooSlowError
from dashboard.filters import Filter
from dashboard.report import Freshness, Period
from dashboard.rosters import Moment, Rosters
from dashboard.tallies import Tallies
from dashboard.together import both, together

EXPORT_SECONDS = 600.0
FAR = date(9000, 1, 1)
MOST_FOUND = 1000  # users whom a search has found and whose sums are looked for one by one

Write = Callable[[bytes], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Rows of one question, and where the page after them begins; None: there is none."""

    rows: Sequence[Row]
    after: tuple[str | None, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Which users come first (None: who was not named), and where the page after them begins."""

    users: Sequence[str | None]
    after: tuple[str | None, ...] | None = None


class Snapshot:
    """The ledger as it was at one moment."""

    def __init__(
        self,
        connection: Connection,
        *,
        newest_call: datetime | None,
        report_zone: ZoneInfo,
        rosters: Rosters,
        daybook: Daybook,
        tallies: Tallies,
    ) -> None:
        self._connection = connection
        self._connections = Connections(connection)
        self._rosters = rosters
        self._looking = asyncio.Lock()  # for who is active: once, not by each who asks
        self._daybook = daybook
        self._tallies = tallies
        self._days: Seen | None = None
        self._reading = asyncio.Lock()  # sums of days, likewise
        self._counting = asyncio.Lock()  # and which days there are
        self.another: Callable[[], Awaitable[Connection | None]] | None = None
        self._moment: Moment | None = None
        self._late = False  # as soon as it is known which days there are
        self.newest_call = newest_call
        self.report_zone = report_zone

    async def take_another(self) -> None:
        """Have what is asked from now on answered by two connections at once, if one is free."""
        if self.another is None or self.hands > 1:
            return
        connection = await self.another()
        if connection is not None:
            self._connections.add(connection)

    @property
    def hands(self) -> int:
        """Return how many questions are answered at once."""
        return self._connections.count

    @property
    def report_timezone(self) -> str:
        """Return the name of the zone in which the days of the rollups begin."""
        return self.report_zone.key

    def freshness(self, now: datetime) -> Freshness:
        """Return as of when all that is read here is."""
        return Freshness(
            as_of=now, newest_call=self.newest_call, report_timezone=self.report_timezone
        )

    async def periods(self, today: date) -> tuple[Period, ...]:
        """Return the sums of today, of this month and of all time."""
        rows = await self._fetch(selects.PERIODS, today)
        everything = Filter(
            range="all", first=None, last=FAR, zone=self.report_zone, report_zone=self.report_zone
        )
        found = []
        for row in rows:
            counted = await self.active_users(everything.with_(first=row["since"]))
            found.append(Period(**row, active_users=counted[()]))
        return tuple(found)

    async def sums(
        self, wanted: Filter, keys: tuple[Key, ...], *, search_in: str = ""
    ) -> Sequence[Row]:
        """Return sums by keys, all of them, in the order of the filter."""
        if in_daybook(wanted, keys, search_in):
            async with self._reading:
                kept = await self._daybook.sums(self._all, await self._seen(), wanted, keys)
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

    async def _ranks(
        self, wanted: Filter, source: Source, values: tuple[object, ...], *, limit: int
    ) -> Sequence[Row]:
        """Return which users come first: by packed sums, or by those of halves at the same time."""
        if ranking.is_packed(wanted):
            ranked = await ranking.ranks(
                self._fetch_first, wanted, limit=limit, tallies=self._tallies
            )
            if ranked is not None:
                return ranked
        statement = adding.ranks(source)
        middle = None
        if not (wanted.users or wanted.without) and self.hands > 1:
            middle = (await self._fetch(selects.MIDDLE))[0]["user_id"]
        everybody, nobody = (None, None, False), (None, None, True)
        if middle is None:
            return await self._fetch(statement, *values, *everybody)
        values = (*values[:-2], wanted.offset + limit, 0)
        parts = ((None, middle, False), (middle, None, False), nobody)
        found = await together(*(self._fetch(statement, *values, *part) for part in parts))
        return merged(wanted, [row for rows in found for row in rows], limit=limit)

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

    async def _summed(
        self, source: Source, keys: tuple[Key, ...], values: tuple[object, ...]
    ) -> Sequence[Row]:
        late = source in PIECED and await self._any_late()
        return await self._fetch(adding.sums(source, keys, late=late), *values)

    async def totals(self, wanted: Filter, *, search_in: str = "") -> Row:
        """Return the sums of the whole filter."""
        if search_in == "user" and wanted.search is not None:
            users = await self._found(wanted)
            if users is not None and not users:
                return added(())
            wanted = wanted if users is None else wanted.with_(search=None, users=users)
        if in_daybook(wanted, (), search_in):
            async with self._reading:
                kept = await self._daybook.total(self._all, await self._seen(), wanted)
            if kept is not None:
                return kept
        source = source_of(wanted, (), search_in)
        values = places(wanted, search_in, pieced=source in PIECED)
        late = source in PIECED and await self._any_late()
        return (await self._fetch(adding.totals(source, late=late), *values))[0]

    async def _found(self, wanted: Filter) -> tuple[str, ...] | None:
        """Return the users whom a search finds; None: they are too many to ask for by name."""
        if wanted.users or not ranking.is_packed(wanted):
            return None
        first, last = wanted.report_days
        found = await self._fetch(placing.FOUND, wanted.search, first, last, MOST_FOUND + 1)
        return None if len(found) > MOST_FOUND else tuple(row["user_id"] for row in found)

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

    async def gaps(self, wanted: Filter) -> Sequence[Row]:
        """Return when calls were not metered, the newest first, whosever they were."""
        return await self._fetch_last(selects.GAPS, wanted.start, wanted.end)

    async def open_objects(self, wanted: Filter) -> Sequence[Row]:
        """Return by kind how many objects are not charged yet that were made in these days."""
        return await self._fetch_last(
            selects.OPEN_OBJECTS,
            wanted.start,
            wanted.end,
            list(wanted.users) or None,
            list(wanted.endpoints) or None,
            list(wanted.models) or None,
            list(wanted.without),
        )

    async def _in_rosters(
        self, wanted: Filter, keys: tuple[Key, ...]
    ) -> dict[tuple[Any, ...], int] | None:
        """Return how many users are named, from sets that are kept; None: they do not tell."""
        if not wanted.whole_report_days and await self._any_late():
            return None  # what came late has a day, but no hour in it
        return await self._rosters.count(self._fetch, await self._known(), wanted, keys)

    async def foresee(
        self, wanted: Iterable[Filter], by_day: Iterable[Filter], active: Iterable[Filter]
    ) -> None:
        """Read together what is going to be asked for one by one: sums, and who was there."""
        await together(self._foresee_sums(wanted, by_day), self._foresee_active(active))

    async def _foresee_sums(self, wanted: Iterable[Filter], by_day: Iterable[Filter]) -> None:
        known, days = (
            [one for one in some if in_daybook(one, (), "")] for some in (wanted, by_day)
        )
        async with self._reading:
            await self._daybook.read(self._all, await self._seen(), known, days)

    async def _foresee_active(self, wanted: Iterable[Filter]) -> None:
        known = [
            to_quarter(one) if one.in_report_zone else one for one in wanted if in_rosters(one, ())
        ]
        if not await self._any_late():
            async with self._looking:
                moment = await self._known()
                await self._rosters.read(self._fetch, moment, known)

    async def _known(self) -> Moment:
        if self._moment is None:
            self._moment = Moment((await self._seen()).versions)
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

    async def calls(self, wanted: Filter, *, limit: int) -> Found:
        """Return calls, newest first unless the filter says otherwise."""
        oldest = wanted.sort == "created_at"
        statement = listing.OLDEST_CALLS if oldest else listing.NEWEST_CALLS
        if wanted.users:
            of_users = (listing.NEWEST_CALLS_OF_USERS, listing.OLDEST_CALLS_OF_USERS)
            statement = of_users[oldest]
        moment, event = call_key(wanted)
        values: tuple[object, ...] = (*places(wanted, "any"), moment, event, limit + 1)
        if is_narrow(wanted) and not await self._any_late():
            window = await self._window(wanted, limit=limit + 1)
            if window is None:
                return Found(rows=())
            values = (*window, *values[2:])
        rows = await self._fetch_last(statement, *values)
        if len(rows) <= limit:
            return Found(rows=rows)
        last = rows[limit - 1]
        return Found(
            rows=rows[:limit], after=(last["created_at"].isoformat(), str(last["event_id"]))
        )

    async def _window(self, wanted: Filter, *, limit: int) -> tuple[datetime, datetime] | None:
        """Return the time in which a page of calls lies; None: there are no such calls."""
        asked = on_days(wanted)
        exact = not (wanted.by_call or wanted.search or wanted.after)
        values = (*places(asked, ""), limit if exact else None, wanted.sort == "created_at")
        found = (await self._fetch(listing.WINDOW, *values))[0]
        if found["first"] is None:
            return None
        since, past = around(found["first"], found["last"], self.report_zone)
        return max(since, wanted.start or since), min(past, wanted.end)

    async def _any_late(self) -> bool:
        """Whether any row of the ledger counts later than it came."""
        await self._seen()
        return self._late

    async def call(self, event_id: UUID) -> Row | None:
        """Return one call; its id tells when it was."""
        rows = await self._fetch(listing.CALL, moment(event_id), event_id)
        return rows[0] if rows else None

    async def lines(self, event_id: UUID) -> Sequence[Row]:
        """Return what a call cost, component by component."""
        return await self._fetch(listing.LINES, moment(event_id), event_id)

    async def answers(self, wanted: Filter) -> Sequence[Row]:
        """Return how the calls of endpoints ended; days are those of the report time zone."""
        return await self._fetch_last(selects.ANSWERS, *of_endpoint(wanted))

    async def durations(self, wanted: Filter) -> Sequence[Row]:
        """Return how long their answers took, to within a class of durations."""
        return await self._fetch_last(selects.DURATIONS, *of_endpoint(wanted))

    async def bounds(self, wanted: Filter, *, rows: int) -> Sequence[datetime]:
        """Return where slices of about so many calls begin, of all calls in the range."""
        found = await self._fetch(selects.BOUNDS, wanted.start, wanted.end, rows)
        return [row["begin"] for row in found]

    async def any_late(self, wanted: Filter) -> bool:
        """Whether a row counts in the range that was admitted in a month closed before it came."""
        found = await self._fetch(selects.ANY_LATE, wanted.start, wanted.end)
        return bool(found[0]["any_late"])

    async def exported(self) -> str:
        """Return the name by which another transaction can see what this one sees."""
        return str((await self._fetch(selects.EXPORTED))[0]["name"])

    async def copy(
        self, statement: str, values: Sequence[object], write: Write, *, header: bool = True
    ) -> int:
        """Write what a SELECT finds as CSV, as fast as it is taken; return how many rows."""
        refused: list[OSError] = []

        async def taken(chunk: bytes) -> None:
            try:
                await write(chunk)
            except OSError as exc:
                refused.append(exc)
                raise

        try:
            said = await self._connection.copy_from_query(
                statement,
                *values,
                output=taken,
                format="csv",
                header=header,
                timeout=EXPORT_SECONDS,
            )
        except OSError as exc:
            if exc in refused:  # whoever takes the file cannot: not the database's fault
                raise
            raise TooSlowError if isinstance(exc, TimeoutError) else unavailable(exc) from exc
        return int(said.rpartition(" ")[2])

    async def names(self, since: datetime, *, at_most: int) -> dict[str, tuple[str, ...]]:
        """Return the names that calls since then have, by parameter."""
        rows = await self._fetch(selects.NAMES, since, at_most)
        return {row["kind"]: tuple(row["names"]) for row in rows}

    async def prices(self) -> Sequence[Row]:
        """Return every unit price of every catalogue that a row was priced with."""
        return await self._fetch(selects.PRICES)

    async def _fetch(self, statement: str, *values: object) -> Sequence[Row]:
        return await self._connections.fetch(statement, *values)

    async def _fetch_first(self, statement: str, *values: object) -> Sequence[Row]:
        return await self._connections.fetch(statement, *values, priority=Priority.FIRST)

    async def _fetch_last(self, statement: str, *values: object) -> Sequence[Row]:
        return await self._connections.fetch(statement, *values, priority=Priority.LAST)
