"""A report for those who must not see who users are: pseudonyms, and nothing to find them out by.

A pseudonym stays the same, so that rows can be compared and followed. What a client can write into
a call (metadata) is left out, because it may name people; where a page begins is told by a number,
because a name would be one. Pure.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from dashboard.errors import ParameterError
from dashboard.filters import OFFSET, Filter
from dashboard.report import Report, Table, Value

_NAMING = ("user_id",)
_TELLING = ("metadata", "attribution_problem")


def demand_blind(wanted: Filter, *, finds_users: bool) -> None:
    """Raise ParameterError for a question that would tell who somebody is.

    `finds_users`: whether the page lists users, by whose names it can be searched and sorted.
    """
    reason = "this account sees pseudonyms, and cannot ask for a user"
    if wanted.users:
        raise ParameterError("user", reason)
    if wanted.metadata:
        raise ParameterError("metadata", reason)
    if wanted.search and finds_users:
        raise ParameterError("search", reason)
    if wanted.after is not None and not _is_blind(wanted.after[0] or ""):
        raise ParameterError("after", reason)
    if wanted.sort in {"name", "-name"} and finds_users:
        raise ParameterError("sort", reason)


def _is_blind(place: str) -> bool:
    """Whether a page begins after a number of rows, or after a moment: not after a name."""
    if place == OFFSET:
        return True
    try:
        datetime.fromisoformat(place)
    except ValueError:
        return False
    return "T" in place  # a day may be read as a sum, behind which a name would count


def hidden(report: Report, pseudonym: Callable[[str], str]) -> Report:
    """Return the report with pseudonyms for users."""
    tables = tuple(_hidden(table, report.filter, pseudonym) for table in report.tables)
    return replace(report, tables=tables, blind=True)


def _hidden(table: Table, asked: Filter, pseudonym: Callable[[str], str]) -> Table:
    names = [column.name for column in table.columns]
    if not {*_NAMING, *_TELLING} & set(names):
        return table

    def cell(name: str, value: Value) -> Value:
        if name in _TELLING:
            return None
        return pseudonym(value) if name in _NAMING and isinstance(value, str) else value

    rows = tuple(
        tuple(cell(name, value) for name, value in zip(names, row, strict=True))
        for row in table.rows
    )
    if table.next_after is None or table.name != "users":
        return replace(table, rows=rows)
    return replace(table, rows=rows, next_after=(OFFSET, str(asked.offset + len(rows))))
