"""One report → JSON or HTML. Pure; money keeps all its digits as text in JSON."""

import base64
import hashlib
import html
import json
from dataclasses import asdict
from datetime import date, datetime
from decimal import Decimal

from dashboard.report import Health, Stats

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#1c2733;background:#fff}h1{font-size:1.4rem}table{border-collapse:collapse;width:100%}"
    "th,td{padding:.4rem .8rem;text-align:right;border-bottom:1px solid #d9e0e6}"
    "th:first-child{text-align:left}p{color:#52606d}"
    "@media(prefers-color-scheme:dark){body{background:#14191f;color:#e4e9ee}"
    "th,td{border-color:#333c46}p{color:#9aa5b1}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "openai-meter",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_TITLES = {"today": "Today", "month": "This month", "overall": "Overall"}
_ROWS = (
    ("calls", "Calls"),
    ("errors", "Errors"),
    ("active_users", "Active users"),
    ("prompt_tokens", "Prompt tokens"),
    ("cached_tokens", "… of them cached"),
    ("completion_tokens", "Completion tokens"),
    ("total_tokens", "Total tokens"),
    ("unpriced_calls", "Unpriced calls"),
    ("estimated_calls", "Estimated calls"),
    ("unavailable_calls", "Calls of unknown usage"),
)


def stats_json(stats: Stats) -> str:
    """Return the answer of `/api/usage/stats`."""
    document: dict[str, object] = {
        "as_of": stats.as_of,
        "newest_call": stats.newest_call,
        "report_timezone": stats.report_timezone,
    }
    for period in stats.periods:
        values = asdict(period) | {"estimated_share": period.estimated_share}
        document[str(values.pop("name"))] = values
    return json.dumps(document, default=_plain)


def health_json(health: Health) -> str:
    """Return the answer of `/healthz` while the database answers."""
    document = {"status": "ok", "database": "reachable", "newest_call": health.newest_call}
    return json.dumps(document, default=_plain)


def error_json(message: str, *, error_type: str) -> str:
    """Return an error in the shape that OpenAI's clients know."""
    return json.dumps({"error": {"message": message, "type": error_type}})


def stats_page(stats: Stats) -> str:
    """Return the page with the same numbers."""
    head = "".join(f"<th scope=col>{_TITLES[period.name]}</th>" for period in stats.periods)
    rows = [("Cost (USD)", [_money(period.cost_usd) for period in stats.periods])]
    rows += [
        (title, [_count(getattr(period, name)) for period in stats.periods])
        for name, title in _ROWS
    ]
    body = "".join(
        f"<tr><th scope=row>{title}</th>{''.join(f'<td>{value}</td>' for value in values)}</tr>"
        for title, values in rows
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'><title>API Usage</title>"
        f"<style>{_STYLE}</style><h1>API Usage</h1>"
        f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p>{html.escape(_freshness(stats))}</p></html>"
    )


def message_page(message: str) -> str:
    """Return a page that says one thing."""
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>API Usage</title>"
        f"<style>{_STYLE}</style><h1>API Usage</h1><p>{html.escape(message)}</p></html>"
    )


def _freshness(stats: Stats) -> str:
    newest = (
        "none yet" if stats.newest_call is None else f"{stats.newest_call:%Y-%m-%d %H:%M:%S %Z}"
    )
    return (
        f"Newest call: {newest}. Days begin in {stats.report_timezone}. "
        "List prices, not an invoice; “?” is not known."
    )


def _money(value: Decimal | None) -> str:
    return "?" if value is None else f"{value:,.4f}"


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _plain(value: object) -> str:
    match value:
        case Decimal():
            return format(value, "f")
        case datetime() | date():
            return value.isoformat()
        case _:
            raise TypeError(f"{type(value).__name__} has no place in a report")
