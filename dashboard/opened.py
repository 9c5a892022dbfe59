"""Days that are still open, user by user: a page reads them once, for ranks and for who was there.

To read them is most of the work that is not done when a day is over. Ranks need a sum of each user
on each of these days, and who was there needs when each came first and last; so where a page asks
for both, of the same calls, the answer to one tells the other.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date

from dashboard import placing, selects
from dashboard.asking import Row
from dashboard.filters import Filter
from dashboard.presence import Fetch


class OpenDays:
    """What one snapshot sees of days that are open."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._endpoints: tuple[str, ...] = ()  # those whose calls are ranked, at most one; or all
        self._is_expected = False
        self._is_ranked = asyncio.Event()
        self._ranked: Mapping[date, Row | None] = {}  # None: nobody was there

    def expect_ranks(self, wanted: Filter) -> None:
        """Hear that users are going to be ranked; who was there waits for that, if it will tell."""
        narrow = wanted.models or wanted.without or wanted.search or len(wanted.endpoints) > 1
        if not (narrow or self._is_expected):
            self._is_expected, self._endpoints = True, wanted.endpoints

    def are_ranked(self) -> None:
        """Hear that they are, or never will be."""
        self._is_ranked.set()

    async def sums(
        self, column: str, cells: Sequence[object], search: str | None, days: Sequence[date]
    ) -> Sequence[Row]:
        """Return one sum of each user, as `OF_DAYS` tells it."""
        rows = await self._fetch(placing.OF_DAYS[column], *cells, search, days)
        if self._is_expected and not self._is_ranked.is_set():
            self._ranked = dict.fromkeys(days) | {row["day"]: row for row in rows}
            self._is_ranked.set()
        return rows

    async def present(
        self, days: Sequence[date], *, by_endpoint: bool, only: tuple[str, ...], in_parts: bool
    ) -> Sequence[Row]:
        """Return who was there, as `OPEN_ROSTERS` tells it; `only`: at these endpoints, if any."""
        found: list[Row] = []
        if self._is_expected and only == self._endpoints and (only or not by_endpoint):
            await self._is_ranked.wait()
            ranked = [row for day in days if (row := self._ranked.get(day)) is not None]
            found = [{**row, "endpoint": only[0] if only else None} for row in ranked]
            days = [day for day in days if day not in self._ranked]
        if not days:
            return found
        rows = await self._fetch(
            selects.OPEN_ROSTERS, days, by_endpoint, in_parts, list(only) or None
        )
        return [*found, *rows]
