"""One report → HTML, JSON or CSV. Pure; money keeps all its digits as text in JSON."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from decimal import Decimal

from dashboard import pages
from dashboard.report import Column, Health, Report, Stats, Table, Value
from dashboard.roles import Viewer

SCHEMA = "v1"  # of JSON and CSV: columns are added at the end, never renamed or taken away


SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # no-referrer makes a form's Origin null
    "Server": "openai-meter",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

# What a spreadsheet takes for a formula (OWASP ASVS 1.2.10), its full-width twins, and what it
# strips before it looks.
_FORMULA = re.compile("\\s*[=+\\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
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


def to_html(report: Report, viewer: Viewer, options: Mapping[str, Sequence[str]]) -> str:
    """Return a report as a page."""
    return pages.page(report, viewer, options)


def own_page(report: Report) -> str:
    """Return the small page on which users see their own numbers."""
    return pages.own_page(report)


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
    return pages.message_page(message)


def login_page(
    *, csrf: str, following: str, problem: str = "", single_sign_on: bool = False
) -> str:
    """Return the page with the form that asks who somebody is."""
    hidden = {"csrf": csrf, "next": following}
    return pages.login_page(problem=problem, hidden=hidden, single_sign_on=single_sign_on)


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
