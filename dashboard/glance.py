"""Headlines: the cards of the overview, the strip of what to know, the month's end. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from dashboard import formatting
from dashboard.layout import UNKNOWN, address
from dashboard.navigation import carried
from dashboard.report import Report, Value

_ERRORS = ("upstream_error", "timeout", "interrupted", "refused")
_TITLES = {"today": "Today", "this_month": "This month", "overall": "Overall"}
_AGAINST = {
    "today": "against yesterday until this time",
    "this_month": "against last month until this day and hour",
}
_RANGES = {"today": "today", "this_month": "this_month", "overall": "all"}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One number with its name, and what is to be known beside it."""

    title: str
    text: str
    hint: str | None = None
    change: str | None = None
    words: str | None = None
    attention: bool = False
    href: str | None = None


def cards(report: Report) -> list[dict[str, Any]]:
    """Return today, this month and everything, each with what it is compared with."""
    rows = {row["period"]: row for row in report.table("periods").records()}
    return [_card(report, name, rows[name]) for name in _TITLES if name in rows]


def _card(report: Report, name: str, row: Row) -> dict[str, Any]:
    wanted = carried(report, "overview").with_(range=_RANGES[name], first=None)
    compared = name in _AGAINST
    return {
        "title": _TITLES[name],
        "href": address("", wanted),
        "cost": _money(row, "cost_usd", "Cost", compared=compared),
        "against": _AGAINST.get(name, ""),
        "words": "since the first call" if name == "overall" else "nothing to compare with yet",
        "rows": [
            _count(row, "calls", "Calls", compared=compared),
            _count(row, "active_users", "Active users", compared=compared),
            _count(row, "prompt_tokens", "Input tokens", compared=compared),
            replace(
                _count(row, "cached_tokens", "of them cached", compared=compared),
                words=_part(row["cached_tokens"], row["prompt_tokens"]),
            ),
            _count(row, "completion_tokens", "Output tokens", compared=compared),
        ],
    }


def strip(report: Report, table: str) -> list[Item]:
    """Return the totals of a table, and what of them is not as it should be."""
    row: Row = report.table(table).total()
    calls = row.get("calls") or 0
    wanted = carried(report, "calls")
    items = [
        _money(row, "cost_usd", "Cost", compared=True),
        _count(row, "calls", "Calls", compared=True),
    ]
    if row.get("users") is not None:
        items.append(_count(row, "users", "Active users", compared=False))
    items += [
        replace(
            _count(row, "prompt_tokens", "Input tokens", compared=False),
            words=f"{_part(row.get('cached_tokens'), row.get('prompt_tokens'))} cached",
        ),
        _count(row, "completion_tokens", "Output tokens", compared=False),
        replace(
            _rate(row, "errors", "Errors", calls),
            href=address("calls", wanted.with_(outcomes=_ERRORS)),
        ),
        _rate(row, "unpriced_calls", "Unpriced", calls),
        _rate(row, "estimated_calls", "Estimated", calls),
        _rate(row, "unavailable_calls", "No usage", calls),
    ]
    seldom = {"Unpriced", "Estimated", "No usage"}
    return [item for item in items if item.title not in seldom or item.text != "0"]


def projection(report: Report) -> dict[str, Any] | None:
    """Return the month's end as a range; None where the report has none."""
    rows = report.table("projection").records()
    if not rows:
        return None
    (row,) = rows
    so_far, low, high = row["cost_usd"], row["low_cost_usd"], row["high_cost_usd"]
    found: dict[str, Any] = {"title": f"{row['month']:%B} will end at", "range": None}
    found["so_far"] = UNKNOWN if so_far is None else formatting.money(_decimal(so_far))
    if low is None or high is None or so_far is None or not high:
        return found | {"title": f"{row['month']:%B}"}
    most = _decimal(high) * Decimal("1.05")
    return found | {
        "range": f"{formatting.money(_decimal(low))} – {formatting.money(_decimal(high))}",
        "expected": formatting.money(_decimal(row["expected_cost_usd"])),
        "low": _percent(_decimal(low), most),
        "width": _percent(_decimal(high) - _decimal(low), most),
        "part": _percent(_decimal(so_far), most),
    }


def latest(report: Report) -> list[dict[str, Any]]:
    """Return the newest calls, as a feed shows them."""
    return [
        {
            "href": f"/admin/call?call={row['event_id']}",
            "endpoint": _name(row["endpoint"], "(no endpoint)"),
            "user": _name(row["user_id"], "(no user)"),
            "model": _name(row["model"], "(no model)"),
            "outcome": row["outcome"],
            "cost": UNKNOWN if row["cost_usd"] is None else formatting.money(row["cost_usd"]),
            "machine": row["created_at"].isoformat(),
            "clock": f"{row['created_at'].astimezone(report.filter.zone):%H:%M:%S}",
        }
        for row in (dict[str, Any](record) for record in report.table("calls").records())
    ]


def _money(row: Row, name: str, title: str, *, compared: bool) -> Item:
    value = row.get(name)
    if value is None:
        return Item(title=title, text=UNKNOWN, hint="not known")
    return Item(
        title=title,
        text=formatting.money(value),
        hint=formatting.exact(value),
        change=formatting.change(value, row.get(f"previous_{name}")) if compared else None,
    )


def _count(row: Row, name: str, title: str, *, compared: bool) -> Item:
    value = row.get(name)
    if value is None:
        return Item(title=title, text=UNKNOWN, hint="not known")
    large = value >= 10**6
    return Item(
        title=title,
        text=formatting.compact(value) if large else formatting.count(value),
        hint=formatting.count(value) if large else None,
        change=formatting.change(value, row.get(f"previous_{name}")) if compared else None,
    )


def _rate(row: Row, name: str, title: str, calls: int) -> Item:
    value = row.get(name) or 0
    return Item(
        title=title,
        text=formatting.count(value),
        words=_part(value, calls),
        attention=bool(value) and name != "estimated_calls",
    )


def _part(part: int | None, whole: int | None) -> str:
    if part is None or not whole:
        return UNKNOWN
    return formatting.share(Decimal(part) / whole)


def _percent(part: Decimal, whole: Decimal) -> str:
    return f"{max(0.0, float(part / whole * 100)):.2f}%"


def _decimal(value: Value) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _name(value: str | None, nameless: str) -> str:
    return nameless if value is None else formatting.text(value)
