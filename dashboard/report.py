"""The numbers of a report: frozen, exact, and honest about what is not known. Pure.

A report is what one question to the ledger has found: tables with their totals, and how fresh they
are. Page, JSON and CSV are made from the same one, so that they cannot disagree.
"""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from dashboard.filters import Filter, Key

Kind = Literal[
    "text", "day", "time", "count", "tokens", "money", "unit_price", "share", "milliseconds",
    "bytes", "flag", "json",
]  # fmt: skip
Value = str | int | float | bool | Decimal | date | datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its name for machines, its title for people, and what its values are."""

    name: str
    title: str
    kind: Kind
    unit: str = ""
    sortable: bool = False

    @property
    def is_number(self) -> bool:
        """Whether its values line up on the right."""
        return self.kind not in {"text", "day", "time", "flag", "json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of values, as many as columns; the totals are of the whole filter, not of the page."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    totals: tuple[Value, ...] | None = None
    next_after: Key | None = None  # the paging key of the next page; None: there is none

    def records(self) -> list[dict[str, Value]]:
        """Return the rows by the names of the columns."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def total(self) -> dict[str, Value]:
        """Return the totals by the names of the columns; empty where a table has none."""
        names = [column.name for column in self.columns]
        return dict(zip(names, self.totals, strict=True)) if self.totals else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """As of when a report is, and what the newest call in the ledger was then."""

    as_of: datetime
    newest_call: datetime | None
    report_timezone: str

    @property
    def lag_seconds(self) -> float | None:
        """Return how long ago the newest call was; None: there is none."""
        if self.newest_call is None:
            return None
        return max(0.0, (self.as_of - self.newest_call).total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The answer to one question; the first table is the one that a CSV holds."""

    name: str
    title: str
    filter: Filter
    freshness: Freshness
    tables: tuple[Table, ...]
    blind: bool = False  # whether users are pseudonyms, which lead nowhere

    def table(self, name: str) -> Table:
        """Return a table by its name; KeyError: the report has none of it."""
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Sums from one day on; None is unknown, and 0 only where there were no calls."""

    name: str  # today, month, overall
    since: date | None
    calls: int
    errors: int
    active_users: int
    unpriced_calls: int
    estimated_calls: int
    unavailable_calls: int
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    total_tokens: int | None
    cost_usd: Decimal | None

    @property
    def estimated_share(self) -> float | None:
        """Return which part of the calls has estimated usage; None without calls."""
        return round(self.estimated_calls / self.calls, 6) if self.calls else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What `/api/usage/stats` shows."""

    as_of: datetime
    newest_call: datetime | None
    report_timezone: str
    periods: tuple[Period, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What `/healthz` shows while the database answers."""

    newest_call: datetime | None
