"""Days that are still open, user by user: a page reads them once, for ranks and for who was there.

To read them is most of the work that is not done when a day is over. Ranks need a sum of each user
on each of these days, and who was there needs when each came first and last; so where a page asks
for both, of the same calls, the answer to one tells the other.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date

from dashboard import placing, selects
from dashboard.asking import Row, cells_of
from dashboard.filters import Filter
from dashboard.presence import ALL_CALLS, Calls, Fetch

PATIENCE_SECONDS = 10.0  # with ranks, which are at most as long under way


class OpenDays:
    """What one snapshot sees of days that are open."""

    def __init__(self, fetch: Fetch, *, patience: float = PATIENCE_SECONDS) -> None:
        self._fetch = fetch
        self._patience = patience
        self._expected: Filter | None = None
        self._ranked: Mapping[date, Row | None] = {}  # None: nobody was there
        self._settled = asyncio.Event()  # whether ranks have told, or never will

    @contextmanager
    def expecting_ranks(self, wanted: Filter) -> Iterator[None]:
        """Let who was there wait for ranks that are asked for now; only for the first of a page."""
        narrow = wanted.without or wanted.search or len(wanted.endpoints) > 1
        if narrow or self._expected is not None:
            yield
            return
        self._expected = wanted
        try:
            yield
        finally:
            self._settled.set()

    async def sums(self, wanted: Filter, column: str, days: Sequence[date]) -> Sequence[Row]:
        """Return one sum of each user, as `OF_DAYS` tells it."""
        rows: Sequence[Row] = ()
        if days:
            statement = placing.OF_DAYS[column]
            rows = await self._fetch(statement, *cells_of(wanted), wanted.search, days)
        if wanted == self._expected:
            self._ranked = dict.fromkeys(days) | {row["day"]: row for row in rows}
            self._settled.set()
        return rows

    async def present(
        self,
        days: Sequence[date],
        calls: Calls = ALL_CALLS,
        *,
        by_endpoint: bool,
        in_parts: bool,
    ) -> Sequence[Row]:
        """Return who was there, as `OPEN_ROSTERS` tells it."""
        found: list[Row] = []
        ranked = self._expected
        is_ranked = ranked is not None and calls == Calls(ranked.endpoints, ranked.models)
        if is_ranked and (calls.endpoints or not by_endpoint):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience):
                    await self._settled.wait()
            rows = [row for day in days if (row := self._ranked.get(day)) is not None]
            endpoint = calls.endpoints[0] if calls.endpoints else None
            found = [{**row, "endpoint": endpoint} for row in rows]
            days = [day for day in days if day not in self._ranked]
        if not days:
            return found
        rest = await self._fetch(
            selects.OPEN_ROSTERS, days, by_endpoint, in_parts, *calls.parameters
        )
        return [*found, *rest]
