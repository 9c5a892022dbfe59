"""What each page asks the ledger, as a report: the same one for page, JSON and CSV."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from dashboard import projecting, tables
from dashboard.asking import Row, added, knows_users
from dashboard.cells import Key
from dashboard.errors import NotFoundError, ParameterError
from dashboard.filters import Filter
from dashboard.report import Report, Table
from dashboard.snapshot import Snapshot
from dashboard.summing import Ranked
from dashboard.together import both, together

TOP_USERS = 10
USERS_OF_ENDPOINT = 50
CALLS_OF_USER = 100
NEWEST_CALLS = 5

_USERS_OF_SHORTER = "; users only for shorter ranges"


class Reporter:
    """Answers questions out of one snapshot of the ledger."""

    def __init__(self, snapshot: Snapshot, *, now: datetime) -> None:
        self._snapshot = snapshot
        self._now = now

    async def overview(self, wanted: Filter) -> Report:
        """Return everything at a glance: periods, days, endpoints, users, the month's end."""
        await self._snapshot.take_another()
        top = wanted.with_(sort=None, size=TOP_USERS)
        users, at_a_glance, days, endpoints, projection, calls, gaps, objects = await together(
            self._users("Top users", top, limit=TOP_USERS),  # who waits for most
            self._periods(wanted),
            self._sums("days", "Cost by day", wanted, ("day", "endpoint")),
            self._sums("endpoints", "Endpoints", wanted, ("endpoint",)),
            self._projection(wanted),
            self._calls("calls", "Newest calls", top, limit=NEWEST_CALLS),
            self._gaps(wanted),
            self._open_objects(wanted),
        )
        found = (at_a_glance, days, endpoints, users, projection, calls, gaps, objects)
        return self._report("overview", "API Usage", wanted, *found)

    async def users(self, wanted: Filter) -> Report:
        """Return the sums of each user, a page of them."""
        await self._snapshot.take_another()
        table = await self._users("Users", wanted, search_in="user", limit=wanted.size)
        return self._report("users", "Users", wanted, table)

    async def user(self, wanted: Filter) -> Report:
        """Return what one user did: by day, by endpoint and model, and the last calls."""
        if len(wanted.users) + ("user" in wanted.without) != 1:
            raise ParameterError("user", "expected one user, or without=user")
        name = wanted.users[0] if wanted.users else "calls without a user"
        await self._snapshot.take_another()
        found = await together(
            self._sums("days", "By day", wanted, ("day",)),
            self._sums("endpoints", "By endpoint and model", wanted, ("endpoint", "model")),
            self._calls("calls", "Last calls", wanted, limit=CALLS_OF_USER),
        )
        return self._report("user", f"User {name}", wanted, *found)

    async def own(self, wanted: Filter) -> Report:
        """Return what a user may see of their own numbers: by day and by endpoint."""
        days = await self._sums("days", "By day", wanted, ("day",))
        endpoints = await self._sums("endpoints", "By endpoint", wanted, ("endpoint",))
        return self._report("own", "Your usage", wanted, days, endpoints)

    async def endpoints(self, wanted: Filter) -> Report:
        """Return the sums of each endpoint."""
        title = "Endpoints" if knows_users(wanted) else f"Endpoints{_USERS_OF_SHORTER}"
        table = await self._sums(
            "endpoints", title, wanted, ("endpoint",), search_in="endpoint", users=True
        )
        return self._report("endpoints", "Endpoints", wanted, table)

    async def endpoint(self, wanted: Filter) -> Report:
        """Return what one endpoint does: by day, its models, its users, how its calls end."""
        if len(wanted.endpoints) + ("endpoint" in wanted.without) != 1:
            raise ParameterError("endpoint", "expected one endpoint, or without=endpoint")
        name = wanted.endpoints[0] if wanted.endpoints else "calls without an endpoint"
        await self._snapshot.take_another()
        sums, (answers, durations) = await both(
            together(
                self._users("Top users", wanted, limit=USERS_OF_ENDPOINT),
                self._sums("days", "By day", wanted, ("day",)),
                self._sums("models", "Models", wanted, ("model",)),
            ),
            together(self._snapshot.answers(wanted), self._snapshot.durations(wanted)),
        )
        users, days, models = sums
        return self._report(
            "endpoint",
            f"Endpoint {name}",
            wanted,
            days,
            models,
            users,
            tables.plain("outcomes", "How calls ended", tables.OUTCOMES, answers),
            tables.plain("durations", "How long answers took", tables.DURATIONS, durations),
        )

    async def models(self, wanted: Filter) -> Report:
        """Return the sums of each model and service tier, and the unit prices in force."""
        table = await self._sums(
            "models", "Models", wanted, ("model", "service_tier"), search_in="model"
        )
        prices = await self._snapshot.prices()
        newest = [row for row in prices if row["catalog_version"] == prices[0]["catalog_version"]]
        in_force = tables.plain("prices", "Unit prices in force", tables.PRICES, newest)
        return self._report("models", "Models", wanted, table, in_force)

    async def daily(self, wanted: Filter) -> Report:
        """Return the sums of each day."""
        title = "By day"
        if not knows_users(wanted, ("day",)):
            title += _USERS_OF_SHORTER
            title += f", or in {wanted.report_zone.key}" if knows_users(wanted) else ""
        previous = wanted.previous(self._now)
        table = await self._sums("days", title, wanted, ("day",), users=True, previous=previous)
        return self._report("daily", "By day", wanted, table)

    async def calls(self, wanted: Filter) -> Report:
        """Return calls, a page of them."""
        table = await self._calls("calls", "Calls", wanted, limit=wanted.size)
        return self._report("calls", "Calls", wanted, table)

    async def call(self, wanted: Filter, event_id: UUID) -> Report:
        """Return one call; raise NotFoundError where there is none of that id."""
        row = await self._snapshot.call(event_id)
        if row is None:
            raise NotFoundError(f"There is no call {event_id}.")
        lines = await self._snapshot.lines(event_id)
        money = ("list_cost_usd", "cost_usd")
        return self._report(
            "call",
            f"Call {event_id}",
            wanted,
            tables.plain("call", "Call", tables.CALL, [row]),
            tables.plain("components", "How it is made", tables.LINES, lines, totalled=money),
        )

    async def pricing(self, wanted: Filter) -> Report:
        """Return every unit price of every catalogue that a call was priced with."""
        table = tables.plain("prices", "Unit prices", tables.PRICES, await self._snapshot.prices())
        return self._report("pricing", "Prices", wanted, table)

    async def exports(self, wanted: Filter) -> Report:
        """Return the frame of the page that offers files."""
        return self._report("exports", "Exports", wanted)

    async def _periods(self, wanted: Filter) -> Table:
        """Return the sums of all time, of today and of this month, and of as long before."""
        named = [
            (name, part, part.previous(self._now)) for name, part in periods(wanted, self._now)
        ]
        parts = [one for _, *some in named for one in some if one is not None]
        by_day = [wanted, projecting.days_before(wanted, self._now)]
        compared = wanted.previous(self._now)
        asked = [*parts, wanted, *([] if compared is None else [compared])]
        await self._snapshot.foresee(asked, by_day, parts)
        rows = []
        for name, part, before in named:
            row = dict(await self._snapshot.totals(part))
            row |= {"period": name, "active_users": await self._active(part)}
            found = None if before is None else await self._snapshot.totals(before)
            for column in tables.OF_PERIODS:
                row[f"previous_{column}"] = None if found is None else found[column]
            row["previous_active_users"] = None if before is None else await self._active(before)
            rows.append(row)
        return tables.plain("periods", "At a glance", tables.PERIODS, rows)

    async def _active(self, wanted: Filter) -> int | None:
        return await self._snapshot.active(wanted) if knows_users(wanted) else None

    async def _gaps(self, wanted: Filter) -> Table:
        """Return what is in no sum: calls that were not metered."""
        found = await self._snapshot.gaps(wanted)
        return tables.plain("gaps", "Calls not metered", tables.GAPS, found)

    async def _open_objects(self, wanted: Filter) -> Table:
        """Return what is in no sum yet: objects that are charged when they are done."""
        found = await self._snapshot.open_objects(wanted)
        return tables.plain("open_objects", "Not charged yet", tables.OPEN_OBJECTS, found)

    async def _projection(self, wanted: Filter) -> Table:
        days = projecting.days_before(wanted, self._now)
        found = await self._snapshot.sums(days, ("day",))
        row = projecting.month_end(found, days, self._now)
        return tables.plain("projection", "This month's end", projecting.COLUMNS, [row])

    async def _sums(
        self,
        name: str,
        title: str,
        wanted: Filter,
        keys: tuple[Key, ...],
        *,
        search_in: str = "",
        users: bool = False,
        previous: Filter | None = None,
    ) -> Table:
        """Return all sums by some keys; those of days are compared only where that is asked."""
        asked = self._snapshot
        rows = await asked.sums(wanted, keys, search_in=search_in)
        is_all = wanted.after is None
        total = added(rows) if is_all else await asked.totals(wanted, search_in=search_in)
        previous = previous if "day" in keys else wanted.previous(self._now)
        before: Sequence[Row] | None = None
        if previous is not None:
            before = await asked.sums(previous.with_(sort=None), keys, search_in=search_in)
        counted: Mapping[tuple[Any, ...], int | None] | None = None
        if users and not knows_users(wanted, keys):
            counted = {tuple(row[key] for key in keys): None for row in rows}
        elif users:
            counted = await asked.active_users(wanted, keys, search_in=search_in)
        everybody: Mapping[tuple[Any, ...], int] = {}
        if users and knows_users(wanted):
            everybody = await asked.active_users(wanted, search_in=search_in)
        summed = tables.Sums(
            rows=rows,
            total=total,
            users=counted,
            all_users=everybody.get(()),
            before=None
            if before is None
            else {_key(row, keys, wanted, previous): row for row in before},
            total_before=None if before is None else added(before),
        )
        return tables.summed(name, title, keys, summed)

    async def _users(self, title: str, wanted: Filter, *, limit: int, search_in: str = "") -> Table:
        """Return the sums of users who come first, and of all whom the filter wants.

        Compared are these users alone: who was only there before is not looked for.
        """
        asked, previous = self._snapshot, wanted.previous(self._now)
        ranges = [wanted] if previous is None else [wanted, previous]

        async def found() -> tuple[Ranked, list[dict[str | None, Row]]]:
            ranked = await asked.first_users(wanted, search_in=search_in, limit=limit)
            sums = (asked.sums_of_users(one, ranked.users) for one in ranges)
            return ranked, await together(*sums)

        totals = (asked.totals(one, search_in=search_in) for one in ranges)
        (ranked, (sums, *before)), (total, *total_before) = await both(found(), together(*totals))
        summed = tables.Sums(
            rows=[sums[user] for user in ranked.users],
            total=total,
            before={(user,): row for user, row in before[0].items()} if before else None,
            total_before=total_before[0] if total_before else None,
            after=ranked.after,
        )
        return tables.summed("users", title, ("user_id",), summed)

    async def _calls(self, name: str, title: str, wanted: Filter, *, limit: int) -> Table:
        found = await self._snapshot.calls(wanted, limit=limit)
        return tables.plain(name, title, tables.CALL, found.rows, next_after=found.after)

    def _report(self, name: str, title: str, wanted: Filter, *found: Table) -> Report:
        return Report(
            name=name,
            title=title,
            filter=wanted,
            freshness=self._snapshot.freshness(self._now),
            tables=found,
        )


def _key(row: Row, keys: tuple[Key, ...], wanted: Filter, before: Filter | None) -> tuple[Any, ...]:
    """Return what a row of the range before is compared with: a day with that of the same place."""
    found = tuple(row[key] for key in keys)
    if keys != ("day",) or wanted.first is None or before is None or before.first is None:
        return found
    return (found[0] + (wanted.first - before.first),)


def periods(wanted: Filter, now: datetime) -> list[tuple[str, Filter]]:
    """Return all time, today and this month, of the calls that a filter wants."""
    today = now.astimezone(wanted.zone).date()
    month = today.replace(day=1)
    plain = wanted.with_(sort=None, compare="previous")
    return [
        ("overall", plain.with_(range="all", first=None, last=today)),
        ("today", plain.with_(range="today", first=today, last=today)),
        ("this_month", plain.with_(range="this_month", first=month, last=today)),
    ]
