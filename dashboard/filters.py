"""A question to the ledger, frozen: which calls of which days, in which order; and its address.

The address of a page is its whole state, so that a link can be kept, sent and gone back to.
"""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, get_args
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

Preset = Literal[
    "today", "yesterday", "7d", "30d", "90d", "this_month", "last_month", "this_year", "all",
    "custom",
]  # fmt: skip
Compare = Literal["none", "previous", "year"]
Named = Literal["user", "endpoint", "model"]
Key = tuple[str | None, ...]  # where a page begins: the sort value and the name of its last row

PRESETS: tuple[Preset, ...] = get_args(Preset)
OUTCOMES = ("ok", "upstream_error", "client_disconnected", "timeout", "interrupted", "refused")
SIZES = (50, 200, 1000)
OFFSET = "+"  # a paging key that is a number of rows, for those who must not see names
MOST_PASSED = 10**15  # rows; a bigint holds them, and a page more

LISTS = {
    "user": "users",
    "endpoint": "endpoints",
    "model": "models",
    "tier": "tiers",
    "outcome": "outcomes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which calls, over which days, in which order. Days are those of `zone`, both included."""

    range: Preset
    first: date | None  # None: from the beginning
    last: date
    zone: ZoneInfo
    report_zone: ZoneInfo
    users: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    without: tuple[Named, ...] = ()  # calls that named none
    metadata: tuple[tuple[str, str], ...] = ()
    search: str | None = None
    sort: str | None = None  # a column; a minus before it: largest first
    size: int = SIZES[0]
    after: Key | None = None
    compare: Compare = "none"
    until: datetime | None = None  # ends the last day early, where a part of it is compared

    @property
    def start(self) -> datetime | None:
        """Return the first instant, UTC; None: from the beginning."""
        return None if self.first is None else midnight(self.first, self.zone)

    @property
    def end(self) -> datetime:
        """Return the instant at which the range is over, UTC."""
        end = midnight(self.last + timedelta(days=1), self.zone)
        return end if self.until is None else min(end, self.until)

    @property
    def in_report_zone(self) -> bool:
        """Whether days begin where those of the rollups do."""
        return self.zone.key == self.report_zone.key

    @property
    def whole_report_days(self) -> bool:
        """Whether the range is made of days as the rollups know them, and of nothing else."""
        return self.in_report_zone and self.until is None

    @property
    def report_days(self) -> tuple[date, date]:
        """Return the first and last day of the report's zone that lie wholly in the range.

        Where there are none the last lies before the first.
        """
        start, zone = self.start, self.report_zone
        last = self.end.astimezone(zone).date() - timedelta(days=1)
        if start is None:
            return date.min, last
        first = start.astimezone(zone).date()
        return (first if midnight(first, zone) >= start else first + timedelta(days=1)), last

    @property
    def by_call(self) -> bool:
        """Whether only the calls themselves can tell, and no rollup."""
        return bool(self.outcomes or self.metadata)

    @property
    def offset(self) -> int:
        """Return how many rows are passed over; 0 where a page begins after a certain row."""
        if self.after is None or self.after[0] != OFFSET:
            return 0
        rows = self.after[1] or ""
        return min(int(rows), MOST_PASSED) if rows.isdecimal() else 0

    def with_(self, **changes: Any) -> "Filter":  # noqa: ANN401 - the names of its own fields
        """Return the filter with some fields changed; a change of any begins at the first page."""
        return replace(self, **({"after": None} | changes))

    def without_value(self, parameter: str, value: str) -> "Filter":
        """Return the filter less one of its values, as a chip's cross takes it away."""
        if parameter == "metadata":
            kept = tuple(pair for pair in self.metadata if written_pair(*pair) != value)
            return self.with_(metadata=kept)
        if parameter == "without":
            return self.with_(without=tuple(name for name in self.without if name != value))
        if parameter == "search":
            return self.with_(search=None)
        field = LISTS[parameter]
        return self.with_(**{field: tuple(kept for kept in getattr(self, field) if kept != value)})

    def pairs(self) -> list[tuple[str, str]]:
        """Return the parameters that make this filter again; what is the default is left out."""
        found = list(self._range_pairs())
        for parameter, field in LISTS.items():
            found += [(parameter, value) for value in getattr(self, field)]
        found += [("without", name) for name in self.without]
        found += [("metadata", written_pair(*pair)) for pair in self.metadata]
        optional = (
            ("search", self.search),
            ("sort", self.sort),
            ("size", None if self.size == SIZES[0] else str(self.size)),
            ("compare", None if self.compare == "none" else self.compare),
            ("after", None if self.after is None else written_key(self.after)),
        )
        return found + [(name, value) for name, value in optional if value is not None]

    def query(self) -> str:
        """Return the query string that makes this filter again."""
        return urlencode(self.pairs())

    def chips(self) -> list[tuple[str, str, str]]:
        """Return parameter, value and the query without it, for each value that narrows."""
        narrowing = {*LISTS, "without", "metadata", "search"}
        return [
            (name, value, self.without_value(name, value).query())
            for name, value in self.pairs()
            if name in narrowing
        ]

    def previous(self, now: datetime) -> "Filter | None":
        """Return what to compare with; None: there is nothing, or it is not wanted.

        Of a range that is not over, as much of the one before is compared as has passed of this.
        """
        if self.compare == "none" or self.first is None:
            return None
        first, last = _compared(self.first, self.last, self.range, self.compare)
        before = self.with_(range="custom", first=first, last=last, compare="none")
        today = now.astimezone(self.zone).date()
        if not self.first <= today <= self.last:
            return before
        day = min(last, first + (today - self.first))
        passed = now - midnight(today, self.zone)
        return before.with_(last=day, until=midnight(day, self.zone) + passed)

    def _range_pairs(self) -> Iterable[tuple[str, str]]:
        if self.range == "custom":
            if self.first is not None:
                yield "from", self.first.isoformat()
            yield "to", self.last.isoformat()
        elif self.range != "30d":
            yield "range", self.range
        if not self.in_report_zone:
            yield "tz", self.zone.key


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the instant, UTC, at which a day begins in a zone."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def written_pair(key: str, value: str) -> str:
    """Return metadata as its parameter takes it: JSON where `key=value` would be another key."""
    if not key or "=" in key or key.startswith("{"):
        return json.dumps({key: value}, ensure_ascii=False)
    return f"{key}={value}"


def written_key(key: Key) -> str:
    """Return a paging key as the text that `after` takes."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def _compared(first: date, last: date, preset: Preset, compare: Compare) -> tuple[date, date]:
    """Return the days before, as many: whole months against whole months, weekdays matched."""
    if compare == "year":
        return first - timedelta(days=364), last - timedelta(days=364)
    if preset in {"this_month", "last_month"}:
        end = first - timedelta(days=1)
        return end.replace(day=1), end
    if preset == "this_year":
        return first.replace(year=first.year - 1), last.replace(year=last.year - 1)
    length = last - first + timedelta(days=1)
    return first - length, last - length
