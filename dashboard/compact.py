"""Sums of many stretches of time as a few bytes each, and added up again: exact. Pure.

Of each stretch and each endpoint, model and tier there is one cell: a bit for each sum that is
known, the sums as whole numbers, costs in units of the ledger's last digit, the first and the last
call in microseconds. So a sum is unknown if it is known in none of the cells, as in SQL.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Context, Decimal
from functools import lru_cache, reduce
from operator import or_
from typing import Any, TypeAlias

from dashboard.asking import EPOCH, Row
from dashboard.cells import SUMS, Key
from dashboard.filters import Filter

DIGITS = 12  # of a cost, behind the point: the ledger has no more
EXACT = Context(prec=60)
MICROSECOND = timedelta(microseconds=1)

_ADDED = SUMS[:-2]
_MONEY = tuple(_ADDED.index(name) for name in ("cost_usd", "tool_cost_usd"))
_CELL = struct.Struct(f"<{1 + len(SUMS)}q")
_FIRST, _LAST = len(SUMS) - 1, len(SUMS)

CellKey: TypeAlias = tuple[str | None, str | None, str | None]
Values: TypeAlias = tuple[int, ...]
Item: TypeAlias = tuple[CellKey, Values]
Group: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The cells of a stretch of time, by endpoint, model and service tier."""

    keys: tuple[CellKey, ...]
    data: bytes

    @property
    def size(self) -> int:
        """Return about how many bytes it takes."""
        return 400 + len(self.data) + 8 * len(self.keys)

    def items(self) -> Iterable[Item]:
        """Return each key with its sums."""
        return zip(self.keys, _CELL.iter_unpack(self.data), strict=True)


def packed(row: Row) -> bytes:
    """Return one cell; raise OverflowError where it is too large to be one."""
    known, sums = 0, []
    for place, name in enumerate(_ADDED):
        value = row[name]
        known |= (value is not None) << place
        if isinstance(value, Decimal):
            units = value.scaleb(DIGITS, EXACT)
            value = int(units)
            if value != units:
                raise OverflowError("a cost has more digits than a cell can keep")
        sums.append(value or 0)
    ends = ((row[name] - EPOCH) // MICROSECOND for name in SUMS[-2:])
    try:
        return _CELL.pack(known, *sums, *ends)
    except struct.error as exc:
        raise OverflowError("a sum is larger than a cell can keep") from exc


def chosen(wanted: Filter, items: Iterable[Item]) -> Iterable[Item]:
    """Return the cells that a filter wants."""
    if not (wanted.endpoints or wanted.models or wanted.tiers or wanted.without):
        return items
    told: dict[CellKey, bool] = {}

    def is_wanted(key: CellKey) -> bool:
        if key not in told:
            told[key] = _is_wanted(wanted, key)
        return told[key]

    return [item for item in items if is_wanted(item[0])]


def by_cell(items: Iterable[Item]) -> list[Item]:
    """Return the sums of each endpoint, model and tier."""
    groups: dict[CellKey, list[Values]] = {}
    for key, values in items:
        groups.setdefault(key, []).append(values)
    return [(key, _added(rows)) for key, rows in groups.items()]


def by_keys(keys: tuple[Key, ...], days: Iterable[tuple[date | None, Iterable[Item]]]) -> list[Row]:
    """Return the sums by some keys, the day first if it is one of them; in no order.

    Each day may come once; if it is not among the keys, all items come as those of one.
    """
    names: tuple[Key, ...] = ("endpoint", "model", "service_tier")
    places = tuple(names.index(key) for key in keys if key != "day")
    with_day = "day" in keys
    known: dict[CellKey, Group] = {}
    found: list[Row] = []
    for day, items in days:
        groups: dict[Group, list[Values]] = {}
        for cell, values in items:
            if cell not in known:
                known[cell] = tuple(cell[place] for place in places)
            groups.setdefault(known[cell], []).append(values)
        begin = (day,) if with_day else ()
        for group, rows in groups.items():
            named = zip(keys, (*begin, *group), strict=True)
            found.append({**dict(named), **_row(_added(rows))})
    return found


def total(items: Iterable[Item]) -> Row:
    """Return the sums of cells: of none 0, and None where nothing is known."""
    rows = [values for _, values in items]
    if rows:
        return _row(_added(rows))
    nothing = {name: Decimal(0) if name.endswith("_usd") else 0 for name in _ADDED}
    return nothing | dict.fromkeys(SUMS[-2:])


def _is_wanted(wanted: Filter, key: CellKey) -> bool:
    endpoint, model, tier = key
    return (
        (not wanted.endpoints or endpoint in wanted.endpoints)
        and (not wanted.models or model in wanted.models)
        and (not wanted.tiers or tier in wanted.tiers)
        and not ("endpoint" in wanted.without and endpoint is not None)
        and not ("model" in wanted.without and model is not None)
    )


def _added(rows: Sequence[Values]) -> Values:
    if len(rows) == 1:
        return rows[0]
    columns = list(zip(*rows, strict=True))
    return (
        reduce(or_, columns[0]),
        *map(sum, columns[1:_FIRST]),
        min(columns[_FIRST]),
        max(columns[_LAST]),
    )


def _row(values: Values) -> dict[str, Any]:
    found: list[Any] = list(values[1:_FIRST])
    for place in _MONEY:
        found[place] = Decimal(found[place]).scaleb(-DIGITS, EXACT)
    row = dict(zip(_ADDED, found, strict=True))
    for name in _unknown(values[0]):
        row[name] = None
    row["first_call"] = EPOCH + values[_FIRST] * MICROSECOND
    row["last_call"] = EPOCH + values[_LAST] * MICROSECOND
    return row


@lru_cache(maxsize=256)
def _unknown(known: int) -> tuple[str, ...]:
    return tuple(name for place, name in enumerate(_ADDED) if not known >> place & 1)
