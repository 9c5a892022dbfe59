"""What can be asked of one moment of the ledger, beside sums: calls, prices, notices, files."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from dashboard import listing, selects
from dashboard.asking import (
    Row,
    around,
    call_key,
    is_narrow,
    moment,
    of_endpoint,
    on_days,
    places,
)
from dashboard.connections import Connection, Connections, unavailable
from dashboard.errors import TooSlowError
from dashboard.filters import Filter
from dashboard.report import Freshness, Period
from dashboard.summing import Kept, Sums

EXPORT_SECONDS = 600.0
FAR = date(9000, 1, 1)

Write = Callable[[bytes], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Rows of one question, and where the page after them begins; None: there is none."""

    rows: Sequence[Row]
    after: tuple[str | None, ...] | None = None


class Snapshot(Sums):
    """The ledger as it was at one moment: sums, calls, and what is told beside them."""

    def __init__(
        self,
        connection: Connection,
        *,
        newest_call: datetime | None,
        report_zone: ZoneInfo,
        kept: Kept,
    ) -> None:
        super().__init__(Connections(connection), kept)
        self._connection = connection
        self.another: Callable[[], Awaitable[Connection | None]] | None = None
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
