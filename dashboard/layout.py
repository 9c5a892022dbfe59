"""Where the numbers of a report stand on its page: cells, links and sort marks.

Everything here is text and addresses; whether it becomes HTML is for `pages`. Any name is a link to
what it names, with the filter that is in force. Pure.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from dashboard import formatting
from dashboard.filters import Filter
from dashboard.report import Column, Report, Table, Value

UNKNOWN = "—"
NAMELESS = {
    "user_id": "(no user)",
    "endpoint": "(no endpoint)",
    "model": "(no model)",
    "service_tier": "(none)",
}

BY_CALL = frozenset({"calls", "exports"})  # pages that know of outcomes and metadata
_SUMS = ("calls", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd")
SHOWN: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("overview", "endpoints"): (
        *("endpoint", "calls", "users", "prompt_tokens", "cached_tokens", "completion_tokens"),
        *("cost_usd", "cost_per_call", "cost_share"),
    ),
    ("overview", "users"): ("user_id", *_SUMS, "cost_share", "last_call"),
    ("overview", "calls"): (
        *("created_at", "user_id", "endpoint", "model", "outcome", "total_tokens", "cost_usd"),
    ),
    ("users", "users"): (
        *("user_id", *_SUMS, "cost_share", "errors", "unpriced_calls", "last_call"),
    ),
    ("user", "endpoints"): ("endpoint", "model", *_SUMS, "cost_share"),
    ("user", "calls"): (
        *("created_at", "endpoint", "model", "outcome", "status", "prompt_tokens"),
        *("completion_tokens", "cost_usd", "latency_ms"),
    ),
    ("endpoints", "endpoints"): (
        *("endpoint", "calls", "users", "errors", "prompt_tokens", "cached_tokens"),
        *("completion_tokens", "cost_usd", "cost_per_call", "cost_share"),
    ),
    ("endpoint", "models"): ("model", *_SUMS, "cost_per_call", "cost_share"),
    ("endpoint", "users"): ("user_id", *_SUMS, "cost_share", "last_call"),
    ("models", "models"): (
        *("model", "service_tier", *_SUMS, "cost_per_call", "cost_share", "unpriced_calls"),
    ),
    ("calls", "calls"): (
        *("created_at", "user_id", "endpoint", "model", "outcome", "status"),
        *("prompt_tokens", "completion_tokens", "cost_usd", "latency_ms"),
    ),
    ("daily", "days"): ("day", "calls", "users", *_SUMS[1:], "errors", "unpriced_calls"),
}
# Pages whose main table can be sorted, and how it is without a word.
SORTED = {
    "users": "-cost_usd",
    "endpoints": "-cost_usd",
    "models": "-cost_usd",
    "calls": "-created_at",
}
_BY_NAME = {"users": "user_id", "endpoints": "endpoint", "models": "model"}
_PATHS = {"user_id": "user", "endpoint": "endpoint", "model": "calls", "outcome": "calls"}
_LISTS = {"user_id": "users", "endpoint": "endpoints", "model": "models", "outcome": "outcomes"}
_WITHOUT = {"user_id": "user", "endpoint": "endpoint", "model": "model"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value on a page: what is shown, what is exact, where it leads."""

    text: str
    hint: str | None = None
    href: str | None = None
    number: bool = False
    unknown: bool = False
    foreign: bool = False  # a text of a client's, which may run from right to left
    machine: str | None = None  # of a moment: as ISO 8601
    part: str | None = None  # of a share: the length of its bar
    change: str | None = None
    badge: str | None = None
    zero: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is a text and nothing else, as most numbers are."""
        marked = self.unknown or self.foreign or self.zero or self.machine or self.badge
        return not (marked or self.hint or self.href or self.part or self.change)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of a column; `sorted` as aria-sort has it."""

    title: str
    name: str
    number: bool
    href: str | None = None
    sorted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table as it stands on the page."""

    name: str
    caption: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[Cell, ...], ...]
    foot: tuple[Cell, ...] | None
    more: str | None = None  # where the next page is
    csv: str | None = None


def address(page: str, wanted: Filter) -> str:
    """Return the address of a page with a filter, less what that page does not know."""
    query = _known(page, wanted).query()
    return f"/admin{page and '/'}{page}{query and '?'}{query}"


def _known(page: str, wanted: Filter) -> Filter:
    if page in BY_CALL:
        return wanted if wanted.compare == "none" else wanted.with_(compare="none")
    if wanted.by_call:
        wanted = wanted.with_(outcomes=(), metadata=())
    if page == "endpoint":  # how its calls ended is known of all of them alone
        without = tuple(name for name in wanted.without if name == page)
        return wanted.with_(users=(), models=(), tiers=(), without=without)
    return wanted


def grid(report: Report, name: str) -> Grid:
    """Return a table of the report as its page shows it."""
    table = report.table(name)
    columns = _columns(report.name, table)
    main = report.tables[0].name == name
    wanted = report.filter
    foot = None
    if table.totals is not None:
        total = table.total()
        key = columns[0].name
        foot = tuple(
            Cell(text="Total") if column.name == key else _of_total(column, total, report)
            for column in columns
        )
    more = None
    if table.next_after is not None and main:
        more = address(_page(report), wanted.with_(after=table.next_after))
    return Grid(
        name=name,
        caption=table.title,
        heads=tuple(_head(report, column, sortable=main) for column in columns),
        rows=tuple(
            tuple(cell(column, row, report) for column in columns) for row in table.records()
        ),
        foot=foot,
        more=more,
    )


def cell(column: Column, row: Mapping[str, Value], report: Report) -> Cell:
    """Return one value of a row."""
    value = row[column.name]
    link = _link(column, row, report)
    if value is None:
        if column.name in NAMELESS and link is not None:
            return Cell(text=NAMELESS[column.name], href=link, unknown=True)
        return Cell(text=UNKNOWN, hint="not known", unknown=True, number=column.is_number)
    shown = _FORMATS[column.kind](value, column, report)
    change = formatting.change(_number(value), _number(row.get(f"previous_{column.name}")))
    return Cell(
        text=shown[0],
        hint=shown[1],
        href=link,
        number=column.is_number,
        foreign=column.kind in {"text", "json"},
        machine=value.isoformat() if isinstance(value, datetime) else None,
        part=_part(value) if column.kind == "share" else None,
        change=change if f"previous_{column.name}" in row else None,
        zero=value == 0 and column.kind == "count",
        badge=str(value) if column.name in {"outcome", "usage_source"} else None,
    )


def _of_total(column: Column, total: Mapping[str, Value], report: Report) -> Cell:
    if total.get(column.name) is None and column.kind in {"text", "time", "day"}:
        return Cell(text="")
    return cell(column, {**total}, report)


def _columns(page: str, table: Table) -> tuple[Column, ...]:
    """Return the columns that a page shows, in its order; of an unknown table all."""
    wanted = SHOWN.get((page, table.name))
    if wanted is None:
        return table.columns
    known = {column.name: column for column in table.columns}
    return tuple(known[name] for name in wanted if name in known)


def _head(report: Report, column: Column, *, sortable: bool) -> Head:
    default = SORTED.get(report.name)
    by_name = _BY_NAME.get(report.name) == column.name
    if by_name and report.blind and column.name == "user_id":
        default = None  # their order would tell who they are
    if not sortable or default is None or not (column.sortable or by_name):
        return Head(title=column.title, name=column.name, number=column.is_number)
    key = "name" if by_name else column.name
    current = report.filter.sort or default
    marks = {key: "ascending", f"-{key}": "descending"}
    first, second = (key, f"-{key}") if by_name else (f"-{key}", key)
    following = second if current == first else first
    wanted = report.filter.with_(sort=None if following == default else following)
    return Head(
        title=column.title,
        name=column.name,
        number=column.is_number,
        href=address(_page(report), wanted),
        sorted=marks.get(current),
    )


def _page(report: Report) -> str:
    return "" if report.name == "overview" else report.name


def _link(column: Column, row: Mapping[str, Value], report: Report) -> str | None:
    """Return where a value leads; None: nowhere."""
    name, value = column.name, row[column.name]
    if name in {"created_at", "event_id"}:
        event = row.get("event_id")
        return f"/admin/call?{urlencode({'call': str(event)})}" if event else None
    if name == "day" and isinstance(value, date):
        return address("calls", _filtered(report, range="custom", first=value, last=value))
    if name not in _PATHS or (report.blind and name == "user_id" and value):
        return None
    if value is not None:
        return address(_PATHS[name], _filtered(report, **{_LISTS[name]: (str(value),)}))
    nameless, without = _WITHOUT.get(name), report.filter.without
    if nameless is None or nameless in without:
        return None
    return address(_PATHS[name], _filtered(report, without=(*without, nameless)))


def _filtered(report: Report, **changes: Any) -> Filter:  # noqa: ANN401 - the filter's own fields
    return report.filter.with_(**({"sort": None, "size": 50, "search": None} | changes))


def _number(value: Value) -> Decimal | int | None:
    return value if isinstance(value, (Decimal, int)) else None


def _part(value: Any) -> str:  # noqa: ANN401 - a share
    return f"{min(100.0, max(0.0, float(value) * 100)):.2f}%"


_MEASURES = {"latency": "the end of the answer", "first_byte": "its first byte"}
_Format = Callable[[Any, Column, Report], tuple[str, str | None]]


def _of_text(value: Any, column: Column, _report: Report) -> tuple[str, str | None]:  # noqa: ANN401 - a text
    if column.name == "measure":
        return _MEASURES.get(str(value), str(value)), None
    shown, whole = formatting.text(str(value)), formatting.hint(str(value))
    return shown, whole if whole != shown else None


def _of_time(value: datetime, _column: Column, report: Report) -> tuple[str, str | None]:
    return formatting.moment(value, report.filter.zone), value.isoformat()


def _of_money(value: Decimal, _column: Column, _report: Report) -> tuple[str, str | None]:
    return formatting.money(value), formatting.exact(value)


_FORMATS: Mapping[str, _Format] = {
    "text": _of_text,
    "json": _of_text,
    "time": _of_time,
    "money": _of_money,
    "day": lambda value, *_: (f"{value:%a} {value.isoformat()}", None),
    "count": lambda value, *_: (formatting.count(value), None),
    "tokens": lambda value, *_: (formatting.count(value), None),
    "unit_price": lambda value, *_: (formatting.exact(value), None),
    "share": lambda value, *_: (formatting.share(value), None),
    "milliseconds": lambda value, *_: (formatting.milliseconds(value), f"{value} ms"),
    "bytes": lambda value, *_: (formatting.size(value), f"{value:,} bytes"),
    "flag": lambda value, *_: ("yes" if value else "no", None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A name and a value of one call."""

    title: str
    cell: Cell


def facts(report: Report, names: Iterable[str]) -> tuple[Fact, ...]:
    """Return what is known of the report's one call under these names."""
    table = report.table("call")
    columns = {column.name: column for column in table.columns}
    (row,) = table.records()
    return tuple(
        Fact(
            title=columns[name].title.replace("… ", "of it "), cell=cell(columns[name], row, report)
        )
        for name in names
        if row[name] is not None
    )
