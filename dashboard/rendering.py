"""One report → HTML, JSON or CSV. Pure; money keeps all its digits as text in JSON."""

import base64
import csv
import hashlib
import html
import io
import json
import re
from dataclasses import asdict
from datetime import date, datetime
from decimal import Decimal

from dashboard.report import Column, Health, Report, Stats, Table, Value
from dashboard.roles import Viewer

SCHEMA = "v1"  # of JSON and CSV: columns are added at the end, never renamed or taken away

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem;"
    "color:#1c2733;background:#fff}h1{font-size:1.4rem}table{border-collapse:collapse}"
    "th,td{padding:.4rem .8rem;text-align:right;border-bottom:1px solid #d9e0e6}"
    "th:first-child{text-align:left}p{color:#52606d}"
    "@media(prefers-color-scheme:dark){body{background:#14191f;color:#e4e9ee}"
    "th,td{border-color:#333c46}p{color:#9aa5b1}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "openai-meter",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

# What a spreadsheet takes for a formula (OWASP ASVS 1.2.10), its full-width twins, and what it
# strips before it looks.
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_CONTROLS = re.compile("[\x00-\x1f\x7f]")


def to_json(report: Report) -> str:
    """Return a report as JSON: the first table's rows at the top, the other tables by name."""
    asked, fresh = report.filter, report.freshness
    main = report.tables[0] if report.tables else None
    document = {
        "report": report.name,
        "schema": SCHEMA,
        "as_of": fresh.as_of,
        "newest_call": fresh.newest_call,
        "report_timezone": fresh.report_timezone,
        "range": {
            "name": asked.range,
            "from": asked.first,
            "to": asked.last,
            "timezone": asked.zone.key,
            "start": asked.start,
            "end": asked.end,
        },
        **({} if main is None else _table(report, main)),
        "tables": {table.name: _table(report, table) for table in report.tables[1:]},
    }
    return json.dumps(document, default=_plain)


def to_csv(table: Table, *, raw: bool = False) -> str:
    """Return a table as CSV (RFC 4180); unless raw, such that a spreadsheet takes it as text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(column.name for column in table.columns)
    for row in table.rows:
        writer.writerow(
            _cell(column, value, raw=raw) for column, value in zip(table.columns, row, strict=True)
        )
    return text.getvalue() if raw else "\ufeff" + text.getvalue()


def to_html(report: Report, viewer: Viewer) -> str:
    """Return a report as a page."""
    parts = [_heading(report.title)]
    parts += [_html_table(table) for table in report.tables]
    newest = report.freshness.newest_call
    shown = "none yet" if newest is None else f"{newest:%Y-%m-%d %H:%M:%S %Z}"
    words = (
        f"Newest call: {shown}. Days begin in {report.filter.zone.key}. "
        "List prices, not an invoice; “?” is not known."
    )
    who = f"{viewer.name} ({viewer.role})"
    parts.append(f"<p>{html.escape(words)}</p><p>{html.escape(who)}</p></html>")
    return "".join(parts)


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


def error_json(message: str, *, error_type: str, param: str | None = None) -> str:
    """Return an error in the shape that OpenAI's clients know."""
    error = {"message": message, "type": error_type}
    return json.dumps({"error": error if param is None else error | {"param": param}})


def message_page(message: str) -> str:
    """Return a page that says one thing."""
    return f"{_heading('API Usage')}<p>{html.escape(message)}</p></html>"


def login_page(
    *, csrf: str, following: str, problem: str = "", single_sign_on: bool = False
) -> str:
    """Return the page with the form that asks who somebody is."""
    said = f"<p role=alert>{html.escape(problem)}</p>" if problem else ""
    sign_on = '<p><a href="/admin/oidc">Log in with single sign-on</a></p>'
    return (
        f"{_heading('Log in')}{said}<form method=post action=/admin/login>"
        f'<input type=hidden name=csrf value="{html.escape(csrf)}">'
        f'<input type=hidden name=next value="{html.escape(following)}">'
        "<p><label>User <input name=user autocomplete=username required autofocus></label></p>"
        "<p><label>Password <input name=password type=password "
        "autocomplete=current-password required></label></p>"
        f"<p><button>Log in</button></p></form>{sign_on if single_sign_on else ''}</html>"
    )


def _heading(title: str) -> str:
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>"
    )


def _html_table(table: Table) -> str:
    head = "".join(f"<th scope=col>{html.escape(column.title)}</th>" for column in table.columns)
    rows = [*table.rows, *([] if table.totals is None else [table.totals])]
    body = "".join(
        "<tr>"
        + "".join(
            f"<td>{html.escape(_shown(column, value))}</td>"
            for column, value in zip(table.columns, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    caption = html.escape(table.title)
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>{body}</table>"


def _shown(column: Column, value: Value) -> str:
    match value:
        case None:
            return "?" if column.is_number else ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}" if column.is_number else str(value)
        case Decimal() if column.kind == "money":
            return f"{value:,.4f}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S %Z}"
        case _:
            return _text(value)


def _table(report: Report, table: Table) -> dict[str, object]:
    following = None
    if table.next_after is not None:
        following = report.filter.with_(after=table.next_after).query()
    return {
        "rows": table.records(),
        "totals": table.total() or None,
        "next": following,
    }


def _cell(column: Column, value: Value, *, raw: bool) -> str:
    if value is None:
        return ""
    text = _text(value)
    if raw or column.is_number or not isinstance(value, str):
        return text
    return defused(text)


def defused(text: str) -> str:
    """Return text that no spreadsheet takes for a formula or for more than one line."""
    safe = _CONTROLS.sub(" ", text)
    return f"'{safe}" if _FORMULA.match(text) else safe


def _text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case Decimal():
            return format(value, "f")
        case datetime() | date():
            return value.isoformat()
        case _:
            return str(value)


def _plain(value: object) -> str:
    match value:
        case Decimal() | datetime() | date():
            return _text(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no place in a report")
