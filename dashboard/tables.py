"""Rows as tables: which columns each has, what is worked out, what is compared. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from operator import itemgetter
from typing import Any

from dashboard.filters import Key
from dashboard.report import Column, Table, Value

Row = Mapping[str, Any]

_NAMES = {
    "user_id": Column(name="user_id", title="User", kind="text"),
    "endpoint": Column(name="endpoint", title="Endpoint", kind="text"),
    "model": Column(name="model", title="Model", kind="text"),
    "service_tier": Column(name="service_tier", title="Tier", kind="text"),
    "day": Column(name="day", title="Day", kind="day"),
}
_USERS = Column(name="users", title="Users", kind="count")
SUMS = (
    Column(name="calls", title="Calls", kind="count", sortable=True),
    Column(name="errors", title="Errors", kind="count", sortable=True),
    Column(name="prompt_tokens", title="Input", kind="tokens", unit="tokens", sortable=True),
    Column(name="cached_tokens", title="… cached", kind="tokens", unit="tokens", sortable=True),
    Column(
        name="cache_write_tokens", title="… written", kind="tokens", unit="tokens", sortable=True
    ),
    Column(name="completion_tokens", title="Output", kind="tokens", unit="tokens", sortable=True),
    Column(
        name="reasoning_tokens", title="… reasoning", kind="tokens", unit="tokens", sortable=True
    ),
    Column(name="total_tokens", title="Total tokens", kind="tokens", unit="tokens", sortable=True),
    Column(name="cost_usd", title="Cost", kind="money", unit="USD", sortable=True),
    Column(name="tool_cost_usd", title="… tools", kind="money", unit="USD", sortable=True),
    Column(name="unpriced_calls", title="Unpriced", kind="count", sortable=True),
    Column(name="estimated_calls", title="Estimated", kind="count", sortable=True),
    Column(name="unavailable_calls", title="Unknown usage", kind="count", sortable=True),
    Column(name="first_call", title="First call", kind="time", sortable=True),
    Column(name="last_call", title="Last call", kind="time", sortable=True),
)
_WORKED_OUT = (
    Column(name="cost_per_call", title="Cost per call", kind="money", unit="USD"),
    Column(name="cost_share", title="Share of cost", kind="share"),
)
_COMPARED = (
    Column(name="previous_calls", title="Calls before", kind="count"),
    Column(name="previous_total_tokens", title="Tokens before", kind="tokens", unit="tokens"),
    Column(name="previous_cost_usd", title="Cost before", kind="money", unit="USD"),
)
SORTABLE = ("name", *(column.name for column in SUMS if column.sortable))

CALL = (
    Column(name="event_id", title="Call", kind="text"),
    Column(name="created_at", title="Time", kind="time", sortable=True),
    Column(name="user_id", title="User", kind="text"),
    Column(name="endpoint", title="Endpoint", kind="text"),
    Column(name="api_path", title="Path", kind="text"),
    Column(name="operation_name", title="Operation", kind="text"),
    Column(name="upstream", title="Upstream", kind="text"),
    Column(name="upstream_name", title="… by name", kind="text"),
    Column(name="model", title="Model", kind="text"),
    Column(name="request_model", title="Model asked for", kind="text"),
    Column(name="service_tier", title="Tier", kind="text"),
    Column(name="stream", title="Stream", kind="flag"),
    Column(name="status", title="Status", kind="text"),
    Column(name="outcome", title="Outcome", kind="text"),
    Column(name="error_type", title="Error", kind="text"),
    Column(name="prompt_tokens", title="Input", kind="tokens", unit="tokens"),
    Column(name="cached_tokens", title="… cached", kind="tokens", unit="tokens"),
    Column(name="cache_write_tokens", title="… written", kind="tokens", unit="tokens"),
    Column(name="completion_tokens", title="Output", kind="tokens", unit="tokens"),
    Column(name="reasoning_tokens", title="… reasoning", kind="tokens", unit="tokens"),
    Column(name="audio_prompt_tokens", title="Audio input", kind="tokens", unit="tokens"),
    Column(name="audio_completion_tokens", title="Audio output", kind="tokens", unit="tokens"),
    Column(name="total_tokens", title="Total tokens", kind="tokens", unit="tokens"),
    Column(name="cost_usd", title="Cost", kind="money", unit="USD"),
    Column(name="tool_cost_usd", title="… tools", kind="money", unit="USD"),
    Column(name="list_cost_usd", title="List cost", kind="money", unit="USD"),
    Column(name="price_id", title="Price", kind="text"),
    Column(name="catalog_version", title="Catalogue", kind="text"),
    Column(name="unpriced_reason", title="Why not priced", kind="text"),
    Column(name="usage_source", title="Usage", kind="text"),
    Column(name="usage_problem", title="Usage problem", kind="text"),
    Column(name="latency_ms", title="Latency", kind="milliseconds", unit="ms"),
    Column(name="time_to_first_byte_ms", title="First byte", kind="milliseconds", unit="ms"),
    Column(name="request_bytes", title="Request", kind="bytes", unit="bytes"),
    Column(name="response_bytes", title="Answer", kind="bytes", unit="bytes"),
    Column(name="retry_count", title="Retries before", kind="count"),
    Column(name="upstream_request_id", title="Request id", kind="text"),
    Column(name="response_id", title="Response id", kind="text"),
    Column(name="corrects", title="Corrects", kind="text"),
    Column(name="recorded_at", title="Recorded", kind="time"),
    Column(name="attribution_problem", title="Attribution problem", kind="text"),
    Column(name="metadata", title="Metadata", kind="json"),
    Column(name="billed_units", title="Billed units", kind="json"),
)
OUTCOMES = (
    Column(name="outcome", title="Outcome", kind="text"),
    Column(name="status", title="Status", kind="text"),
    Column(name="calls", title="Calls", kind="count"),
)
DURATIONS = (
    Column(name="measure", title="Time to", kind="text"),
    Column(name="calls", title="Calls", kind="count"),
    Column(name="p50_ms", title="Half within", kind="milliseconds", unit="ms"),
    Column(name="p95_ms", title="95 % within", kind="milliseconds", unit="ms"),
    Column(name="p99_ms", title="99 % within", kind="milliseconds", unit="ms"),
)
GAPS = (
    Column(name="started_at", title="From", kind="time"),
    Column(name="ended_at", title="Until", kind="time"),
    Column(name="calls", title="Calls not metered", kind="count"),
    Column(name="writer", title="Writer", kind="text"),
)
OPEN_OBJECTS = (
    Column(name="kind", title="Kind", kind="text"),
    Column(name="objects", title="Not charged yet", kind="count"),
    Column(name="first_made", title="Oldest", kind="time"),
    Column(name="last_made", title="Newest", kind="time"),
)
LINES = (
    Column(name="component", title="Component", kind="text"),
    Column(name="quantity", title="Quantity", kind="tokens"),
    Column(name="list_unit_price", title="Unit price", kind="unit_price", unit="USD"),
    Column(name="list_cost_usd", title="List cost", kind="money", unit="USD"),
    Column(name="cost_usd", title="Cost", kind="money", unit="USD"),
    Column(name="price_id", title="Price", kind="text"),
    Column(name="catalog_version", title="Catalogue", kind="text"),
)
OF_PERIODS = (
    "calls", "errors", "prompt_tokens", "cached_tokens", "completion_tokens", "total_tokens",
    "cost_usd",
)  # fmt: skip
_ACTIVE = Column(name="active_users", title="Active users", kind="count")
_BEFORE = tuple(
    Column(
        name=f"previous_{column.name}", title=f"{column.title} before", kind=column.kind,
        unit=column.unit,
    )
    for column in (_ACTIVE, *(column for column in SUMS if column.name in OF_PERIODS))
)  # fmt: skip
PERIODS = (
    Column(name="period", title="Period", kind="text"),
    _ACTIVE,
    *(replace(column, sortable=False) for column in SUMS),
    *_BEFORE,
)
PRICES = (
    Column(name="catalog_version", title="Catalogue", kind="text"),
    Column(name="price_id", title="Price", kind="text"),
    Column(name="component", title="Component", kind="text"),
    Column(name="list_unit_price", title="Unit price", kind="unit_price", unit="USD"),
)


def plain(
    name: str,
    title: str,
    columns: tuple[Column, ...],
    rows: Iterable[Row],
    *,
    next_after: Key | None = None,
    totalled: tuple[str, ...] = (),
) -> Table:
    """Return rows as they are, with the totals of some columns."""
    found = list(rows)
    totals = tuple(
        _sum(found, column.name) if column.name in totalled else None for column in columns
    )
    return Table(
        name=name,
        title=title,
        columns=columns,
        rows=tuple(tuple(_value(row[column.name]) for column in columns) for row in found),
        totals=totals if totalled and found else None,
        next_after=next_after,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What has been found for one table of sums: rows, their total, and what goes beside them."""

    rows: Sequence[Row]
    total: Row
    users: Mapping[tuple[Any, ...], int | None] | None = None  # by the same keys
    all_users: int | None = None
    before: Mapping[tuple[Any, ...], Row] | None = None  # by the same keys
    total_before: Row | None = None
    after: Key | None = None


def summed(name: str, title: str, keys: tuple[str, ...], found: Sums) -> Table:
    """Return sums by keys, with what is worked out from them and what they are compared with."""
    columns = (
        *(_NAMES[key] for key in keys),
        *(() if found.users is None else (_USERS,)),
        *SUMS,
        *_WORKED_OUT,
        *(() if found.before is None else _COMPARED),
    )
    made = []
    for row in found.rows:
        key = tuple(row[part] for part in keys)
        more = {"users": (found.users or {}).get(key, 0)}
        before = None if found.before is None else found.before.get(key, {})
        made.append(_whole(row, found.total, more, before))
    nameless = dict.fromkeys(keys) | {"users": found.all_users}
    whole = _whole(
        found.total,
        found.total,
        nameless,
        None if found.before is None else found.total_before or {},
    )
    values = itemgetter(*(column.name for column in columns))
    return Table(
        name=name,
        title=title,
        columns=columns,
        rows=tuple(map(values, made)),
        totals=values(whole),
        next_after=found.after,
    )


def share(part: Decimal | int | None, whole: Decimal | int | None) -> Decimal | None:
    """Return a part of a whole, to six digits; None: one is unknown, or the whole is 0.

    What is not nothing never becomes it: of a smaller part one digit is kept.
    """
    if part is None or not whole:
        return None
    exact = Decimal(part) / Decimal(whole)
    return round(exact, max(6, -exact.adjusted())) if exact else Decimal("0.000000")


def _whole(row: Row, total: Row, more: Row, before: Row | None) -> dict[str, Value]:
    """Return a row with everything that is worked out from it."""
    cost, calls = row["cost_usd"], row["calls"]
    worked_out = {
        "cost_per_call": None if cost is None or not calls else round(cost / calls, 12),
        "cost_share": share(cost, total["cost_usd"]),
    }
    compared: dict[str, Value] = {}
    if before is not None:
        compared = {
            "previous_calls": before.get("calls", 0),
            "previous_total_tokens": before.get("total_tokens", 0 if not before else None),
            "previous_cost_usd": before.get("cost_usd", Decimal(0) if not before else None),
        }
    return dict(row) | dict(more) | worked_out | compared


def _sum(rows: Sequence[Row], name: str) -> Value:
    """Return the sum of what is known; None: nothing is."""
    known = [row[name] for row in rows if row[name] is not None]
    return sum(known, Decimal(0)) if known else None


def _value(value: Any) -> Value:  # noqa: ANN401 - whatever the driver makes of a column
    return (
        value if isinstance(value, (str, int, float, Decimal)) or value is None else _shown(value)
    )


def _shown(value: Any) -> Value:  # noqa: ANN401 - the same
    return value if hasattr(value, "isoformat") else str(value)
