"""Reports as the ledger would have them found, for pages that are made without one."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from dashboard import projecting, tables
from dashboard.filters import Filter
from dashboard.report import Freshness, Report, Table

MOMENT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ASKED = Filter(
    range="30d",
    first=date(2026, 10, 24),
    last=date(2026, 11, 22),
    zone=ZoneInfo("UTC"),
    report_zone=ZoneInfo("UTC"),
)
EVENT = "019aabcc-0000-7000-8000-000000000001"
SUMS: dict[str, Any] = {
    "calls": 12,
    "errors": 1,
    "prompt_tokens": 12_345_678,
    "cached_tokens": 1_234_567,
    "cache_write_tokens": None,
    "completion_tokens": 1000,
    "reasoning_tokens": 10,
    "total_tokens": 12_346_678,
    "cost_usd": Decimal("1.5"),
    "tool_cost_usd": Decimal(0),
    "unpriced_calls": 2,
    "estimated_calls": 0,
    "unavailable_calls": 1,
    "first_call": MOMENT,
    "last_call": MOMENT,
}
CALL: dict[str, Any] = {column.name: None for column in tables.CALL} | {
    "event_id": EVENT,
    "created_at": MOMENT,
    "user_id": "ada",
    "endpoint": "generate_hint",
    "operation_name": "chat",
    "model": "gpt-5.4-mini",
    "outcome": "ok",
    "usage_source": "reported",
    "cost_usd": Decimal("0.001575"),
    "price_id": "gpt-5.4-mini@start/default/short",
    "catalog_version": "2026-11-22.3",
    "metadata": '{"course": "algebra-1", "n": 3}',
}


def report(
    name: str, *found: Table, asked: Filter = ASKED, newest: datetime | None = MOMENT
) -> Report:
    """Return a report of these tables."""
    fresh = Freshness(as_of=MOMENT, newest_call=newest, report_timezone="UTC")
    return Report(name=name, title=name.title(), filter=asked, freshness=fresh, tables=found)


def sums(
    name: str,
    keys: tuple[str, ...],
    *rows: Mapping[str, Any],
    before: Mapping[tuple[Any, ...], Mapping[str, Any]] | None = None,
    after: tuple[str | None, ...] | None = None,
) -> Table:
    """Return a table of sums; what a row does not say is as in SUMS."""
    found = tables.Sums(
        rows=[dict.fromkeys(keys) | SUMS | dict(row) for row in rows],
        total=SUMS,
        users={tuple(row.get(key) for key in keys): 3 for row in rows},
        all_users=3,
        before=before,
        total_before=SUMS if before is not None else None,
        after=after,
    )
    return tables.summed(name, name.title(), keys, found)


def calls(name: str, *rows: Mapping[str, Any]) -> Table:
    """Return a table of calls; what a row does not say is as in CALL."""
    return tables.plain(name, name.title(), tables.CALL, [CALL | dict(row) for row in rows])


def periods(**this_month: object) -> Table:
    """Return the sums of today, of this month and of all time, each the same."""
    row = {column.name: None for column in tables.PERIODS} | SUMS | {"active_users": 3}
    rows = [
        row | {"period": name, "previous_cost_usd": Decimal(1)}
        for name in ("overall", "today", "this_month")
    ]
    rows[2] |= this_month
    return tables.plain("periods", "At a glance", tables.PERIODS, rows)


def prices(*rows: tuple[str, str, str]) -> Table:
    """Return unit prices: price_id, component and amount."""
    return tables.plain(
        "prices",
        "Unit prices",
        tables.PRICES,
        [
            {"catalog_version": "2026-11-22.3", "price_id": name, "component": component}
            | {"list_unit_price": Decimal(amount)}
            for name, component, amount in rows
        ],
    )


def projection(**values: object) -> Table:
    """Return the month's end."""
    columns = projecting.COLUMNS
    row = dict.fromkeys(column.name for column in columns) | {"month": date(2026, 11, 1)}
    return tables.plain("projection", "This month's end", columns, [row | values])
